"""`python -m dreamprm NAME …` is `dreamprm NAME …`."""

from dreamprm.commands.main import main

if __name__ == "__main__":
    main()
