"""Pre-training when data are scarce and compute is not: heavy decay, ensembles, scaling laws, distillation."""
