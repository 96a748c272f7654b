"""One file per format of published data."""
