"""Generalization bounds that you can compute: PAC-Bayes, compression, and what over-parametrized models do."""
