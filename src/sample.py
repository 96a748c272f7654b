"""`python -m src.sample`: the policy writes candidates for questions."""

from dreamprm.cli import entry

if __name__ == "__main__":
    entry("sample")
