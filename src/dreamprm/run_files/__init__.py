"""What a run keeps on disk: its folder, held by one process, and its checkpoints."""
