"""Does a lower loss pay down-stream? Questions with four answers, made of text that no model was trained on.

Kim et al. (2025) read their models on PIQA, SciQ and ARC Easy. Ours are far too small for those. Instead: here are some
dozens of tokens of a page that is held out; which of four endings is the real one? Notable:

- All four endings are real, cut from different held-out pages. Each is the right one in its own question and wrong in
  about three others, so an ending alone says nothing: without a context it is 25%.
- Hard questions have four endings that begin with the same word, or the first token would decide. The smallest models
  know little more than that token: for them there are easy questions, without this condition.
- An answer's score is its mean log p per token. By the sum, short endings would win. A common ending still wins too
  often: subtract the scores of `without_context`, and what remains is what the context adds.
- Questions are text, so every tokenizer answers the same ones. A hash decides what is drawn and where the right answer
  stands. `FROZEN` are hashes of the result, from before a model of the chapter answered: a test holds them equal. Three
  pilot models did answer. They led to the easy kind and to `without_context`, and to nothing else.
- `hf_export` writes a member as a Hugging Face folder, for the paper's benchmarks themselves.

Shapes: K members, R questions of C choices, V vocabulary, T tokens of context and ending.
"""

import functools
import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from minilab.core.intervals import wilson
from minilab.corpus.text import END, documents
from minilab.ensembles.data import load_text
from minilab.ensembles.evaluate import Predict, token_log_probs
from minilab.nn.huggingface import save_hf_folder
from minilab.nn.transformer import Transformer

CHOICES = 4
CONTEXT = 150  # characters of context, at most: some 60 tokens of a vocabulary of 1,024
APART = 200  # characters between two cuts of a page: more than a context and an ending
ENDING = re.compile(r" \S.{21,33}?\S(?!\S)")  # whole words of one line, 24 to 36 characters: about 12 tokens
FROZEN = {  # SHA-256
    "easy": "b4dfa1a89eeb6ea10b18ac492be04d8a039a530b9180a78cd5c65cf5ec3318e6",
    "hard": "e1c18aa68a81954d81b41fe5f462b1170b433617ca5e197e39cc62aba115ce9a",
}


@dataclass(frozen=True)
class Question:
    context: str  # ends with a word
    choices: tuple[str, ...]  # each begins with a space and ends with a word
    answer: int  # place of the real one


class Cut(NamedTuple):
    page: int
    context: str
    ending: str


@functools.cache
def questions(kind: str = "easy") -> tuple[Question, ...]:
    """The frozen questions on web-valid, in an order that a hash decides: for fewer, take the first ones.

    Raises ValueError for a kind other than "easy" and "hard".
    """
    if kind not in FROZEN:
        raise ValueError(f"unknown kind of questions {kind!r}; choose {' or '.join(FROZEN)}")
    return make_questions(load_text("web-valid"), same_word=kind == "hard")


def make_questions(text: str, *, same_word: bool, seed: int = 0) -> tuple[Question, ...]:
    """A question for each cut of a text, if three other pages have endings to offer; with `same_word`, endings that
    begin with the same word.

    Raises ValueError if there is none.
    """
    def key(*parts: str) -> bytes:
        return hashlib.sha256("\0".join((str(seed), *parts)).encode()).digest()

    groups: dict[str, list[Cut]] = defaultdict(list)
    for cut in sorted(cuts(text), key=lambda cut: key(cut.context)):
        groups[cut.ending.split()[0] if same_word else ""].append(cut)
    made = []
    for group in groups.values():
        for i, real in enumerate(group):
            pages, endings = {real.page}, [real.ending]
            for other in group[i + 1 :] + group[:i]:  # the next ones: each ending is wrong about as often as any
                if len(endings) < CHOICES and other.page not in pages and other.ending not in endings:
                    pages.add(other.page)
                    endings.append(other.ending)
            if len(endings) == CHOICES:
                answer = key("answer", real.context)[0] % CHOICES
                choices = (*endings[1 : answer + 1], real.ending, *endings[answer + 1 :])
                made.append(Question(real.context, choices, answer))
    if not made:
        raise ValueError(f"{len(text):,} characters in {len(documents(text))} documents give no question: it takes "
                         f"{CHOICES} pages of prose{' whose sentences go on with the same word' * same_word}")
    return tuple(sorted(made, key=lambda question: key(question.context)))


def cuts(text: str) -> Iterator[Cut]:
    """Where pages are cut, between two words of a paragraph: a context, and how it goes on."""
    for page, document in enumerate(documents(text)):
        last = CONTEXT - APART
        for line in re.finditer(r"^[^#\s].*$", document, re.MULTILINE):  # neither headings nor code
            for space in re.finditer(r"(?<=\S) ", line[0]):
                at = line.start() + space.start()
                ending = ENDING.match(document, at)
                if at - last >= APART and ending:
                    yield Cut(page, re.sub(r"^\S*\s+", "", document[at - CONTEXT : at]), ending[0])
                    last = at


def digest(questions: Sequence[Question]) -> str:
    """SHA-256 of questions, to show that they are the frozen ones."""
    return hashlib.sha256(json.dumps([astuple(question) for question in questions]).encode()).hexdigest()


# Answers.


def score(predict: Predict, questions: Sequence[Question], tokenizer: Tokenizer, *, chunk: int = 16,
          device: torch.device | str = "cpu") -> Float[Tensor, "K R C"]:
    """Each member's mean log p of each ending's tokens after the context, `chunk` endings at a time on `device`.

    For the ensemble, score `averaged(predict)`. Raises ValueError for no questions.
    """
    if not questions or chunk < 1:
        raise ValueError(f"{len(questions)} questions, {chunk} endings at a time: give at least one of each")
    contexts = tokenizer.encode_batch([question.context for question in questions])
    rows, ends = [], []
    for question, context in zip(questions, contexts, strict=True):
        for ending in tokenizer.encode_batch(list(question.choices)):
            rows.append(torch.tensor(context.ids + ending.ids))
            ends.append(len(ending.ids))
    found: dict[int, Tensor] = {}
    by_length = sorted(range(len(rows)), key=lambda i: len(rows[i]))  # little padding, behind what is scored
    for some in (by_length[i : i + chunk] for i in range(0, len(rows), chunk)):
        windows = pad_sequence([rows[i] for i in some], batch_first=True).to(device)
        log_p = token_log_probs(predict, windows, chunk=chunk)  # K B T
        for i, row in zip(some, log_p.double().unbind(1), strict=True):
            last = len(rows[i]) - 1
            found[i] = row[:, last - ends[i] : last].mean(1)
    return torch.stack([found[i] for i in range(len(rows))], dim=1).unflatten(1, (len(questions), -1)).cpu()


def without_context(questions: Sequence[Question]) -> list[Question]:
    """The same endings at the beginning of a document."""
    return [replace(question, context=END) for question in questions]


def averaged(predict: Predict) -> Predict:
    """The ensemble as one member: logits averaged over the members, as in the paper."""
    return lambda tokens: predict(tokens).mean(0, keepdim=True)


def credit(scores: Float[Tensor, "K R C"], questions: Sequence[Question]) -> Float[Tensor, "K R"]:
    """1 where the real ending has the highest score, else 0. Endings that tie share: a uniform model gets a quarter."""
    answers = torch.tensor([question.answer for question in questions], device=scores.device)
    best = scores >= scores.amax(2, keepdim=True) - 1e-6
    right = best.gather(2, answers[None, :, None].expand(len(scores), -1, 1))[..., 0]
    return right / best.sum(2)


class Accuracy(NamedTuple):
    share: float  # of the questions
    low: float  # 95% interval
    high: float


def accuracy(scores: Float[Tensor, "K R C"], questions: Sequence[Question]) -> tuple[Accuracy, ...]:
    """Each member's share of right answers, with Wilson's interval: as if questions were drawn independently.

    Two models answer the same questions. Compare them by the difference of their `credit`, which varies less.
    """
    shares = credit(scores, questions).mean(1).tolist()
    return tuple(Accuracy(share, *wilson(share, len(questions))) for share in shares)


# To other people's benchmarks.


def hf_export(model: Transformer, tokenizer: Tokenizer, folder: Path | str) -> Path:
    """Write a member as a folder that `transformers` and EleutherAI's lm-evaluation-harness read:

        pip install 'lm_eval[hf]'
        lm_eval --model hf --model_args pretrained=FOLDER,dtype=float32 --tasks arc_easy,piqa,sciq --device cpu

    Raises ValueError if the tokenizer has more tokens than the model.
    """
    if tokenizer.get_vocab_size() > model.vocab_size:
        raise ValueError(f"a tokenizer of {tokenizer.get_vocab_size()} tokens, but the model has {model.vocab_size}: "
                         "export the tokenizer that it was trained with")
    folder = save_hf_folder(model, folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    facts = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": END, "eos_token": END, "pad_token": END,
             "model_max_length": model.context, "clean_up_tokenization_spaces": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(facts, indent=1) + "\n")
    return folder


def harness_task(questions: Sequence[Question], folder: Path | str, *, name: str = "minilab_endings") -> Path:
    """Write the questions as a task of the same harness, which needs no network. To answer it:

        lm_eval --model hf --model_args pretrained=MEMBER,dtype=float32 --include_path FOLDER --tasks minilab_endings

    Its `acc` goes by the sum of log p and its `acc_norm` by the mean per byte. Folder and files stay where they are.
    """
    folder = Path(folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(asdict(question)) for question in questions]
    (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    task = {"task": name, "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(folder / f"{name}.jsonl")}}, "test_split": "test",
            "output_type": "multiple_choice", "doc_to_text": "{{context}}", "doc_to_choice": "choices",
            "doc_to_target": "answer", "target_delimiter": "",
            "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}]}
    (folder / f"{name}.yaml").write_text(json.dumps(task, indent=1) + "\n")  # JSON is YAML
    return folder
