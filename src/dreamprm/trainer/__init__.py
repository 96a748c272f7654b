"""The training room: the loop over the phases, checkpoints, metrics, progress, what a run leaves."""
