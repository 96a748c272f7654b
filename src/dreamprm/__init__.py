"""Process reward models that learn which of their training data to trust."""
