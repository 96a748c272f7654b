"""The contestants' names, for those who do not want to import torch."""

__all__ = ["NAMES", "PEERS", "PRODUCTS"]

PRODUCTS = ("ghost", "jvp", "fd", "unroll", "darts")
PEERS = ("betty", "torchopt", "higher")
NAMES = (*PRODUCTS, "OneStep", *PEERS)
