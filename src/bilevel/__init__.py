"""Hypergradients for bilevel problems on pure PyTorch."""
