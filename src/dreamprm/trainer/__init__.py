"""The training room: cold start, then bilevel; checkpoints, metrics, progress."""
