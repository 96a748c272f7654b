"""`python -m src.doctor data.path=FILE`: what a trainer must know of a data file."""

from dreamprm.cli import entry

if __name__ == "__main__":
    entry("doctor")
