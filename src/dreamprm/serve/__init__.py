"""Step scores over HTTP: a server of our own, the client of it and of vLLM, and folders for other engines."""
