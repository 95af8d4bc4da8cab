"""Speculative decoding, plain and speculative (chapter 1)."""
