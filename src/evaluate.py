"""`python -m src.evaluate`: best-of-N and step-level figures of a scores file."""

from dreamprm.cli import entry

if __name__ == "__main__":
    entry("evaluate")
