"""`python -m src.label`: Monte-Carlo labels for the steps of chains."""

from dreamprm.cli import entry

if __name__ == "__main__":
    entry("label")
