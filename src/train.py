"""`python -m src.train`, from a checkout: `dreamprm train`."""

from dreamprm.commands.main import entry

if __name__ == "__main__":
    entry("train", program="python -m src.train")
