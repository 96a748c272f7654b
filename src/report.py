"""`python -m src.report`: report.html of a finished run."""

from dreamprm.cli import entry

if __name__ == "__main__":
    entry("report")
