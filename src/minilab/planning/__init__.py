"""Planning by sampling: propose actions, predict what they lead to, score that, and act on the best."""
