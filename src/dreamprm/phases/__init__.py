"""What trains: one file per phase, each with optimizers of its own, and the run that they work on (`state.py`)."""
