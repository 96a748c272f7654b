"""`python -m src.train`: cold start, bilevel training, evaluation, report."""

from dreamprm.cli import entry

if __name__ == "__main__":
    entry("train")
