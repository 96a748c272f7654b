"""Step scores over HTTP: vLLM for CPU with exported folders, and our own server under load."""
