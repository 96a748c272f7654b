"""Microbenchmarks and slow proofs; what they measured lies in reports/."""
