"""What over-parametrized models do, each phenomenon small enough to run in seconds and one function to call."""
