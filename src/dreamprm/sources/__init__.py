"""What a run trains on: files, a pool of collections, the embedded world."""
