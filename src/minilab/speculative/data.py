"""What the models of chapter 1 are asked to continue, and the texts that they come from (`minilab.corpus.text`)."""

import random

from minilab.corpus.text import END, documents, load_corpus, load_tokenizer, token_stream, train_tokenizer

__all__ = ["END", "QUESTIONS", "documents", "load_corpus", "load_tokenizer", "prompts", "token_stream",
           "train_tokenizer"]

# Prompts for a chat model, on everyday subjects that a small one can say something about.
QUESTIONS = (
    "Explain what a hash table is and when to use one.",
    "Write a short story about a lighthouse keeper who finds a letter.",
    "What are the main causes of the seasons on Earth?",
    "Give me five tips for learning a new language.",
    "How does a bicycle stay upright while it moves?",
    "Write a Python function that checks whether a word is a palindrome.",
    "Summarize the water cycle in a few sentences.",
    "What is the difference between weather and climate?",
    "Describe how bread is made, step by step.",
    "Why is the sky blue?",
    "Write a polite email that asks to move a meeting to Thursday.",
    "What should I look for when I buy a used car?",
    "Explain supply and demand with an example.",
    "List three advantages and three disadvantages of remote work.",
    "How do vaccines work?",
    "What makes a good friend?",
)


def prompts(n: int, *, words: int = 24, seed: int = 0) -> list[str]:
    """Beginnings of paragraphs from the shipped text, each cut after some words.

    A reader can compare a continuation with the page. Deterministic for a seed.
    Raises ValueError if the text has too few paragraphs.
    """
    found = [
        p
        for d in documents(load_corpus("shipped"))
        for p in d.split("\n\n")
        if len(p.split()) >= 2 * words and p[0].isupper() and "\n" not in p
    ]
    if n > len(found):
        raise ValueError(f"the shipped text has {len(found)} paragraphs to cut prompts from, not {n}")
    chosen = random.Random(seed).sample(found, n)
    return [" ".join(p.split()[:words]) for p in chosen]
