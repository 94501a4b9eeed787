"""`python -m llava`: the `llava` command, where its script is not on the path."""

from llava.cli import main

if __name__ == "__main__":
    main()
