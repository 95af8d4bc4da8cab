"""Text to train small language models on, and the tokenizer that was trained on it."""
