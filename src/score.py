"""`python -m src.score`: the PRM scores every step of every candidate."""

from dreamprm.cli import entry

if __name__ == "__main__":
    entry("score")
