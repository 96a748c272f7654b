"""Examine a data set before training on it: `python -m src.doctor data.path=FILE`."""

import sys

from dreamprm.doctor import main

if __name__ == "__main__":
    sys.exit(main())
