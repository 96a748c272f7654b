"""`python -m src.select`: best-of-N: one candidate per question."""

from dreamprm.cli import entry

if __name__ == "__main__":
    entry("select")
