"""Hypergradients beside the floor and the peers: `make bench`."""
