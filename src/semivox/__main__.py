"""`python -m semivox` is the same as `semivox`."""

from semivox.cli import main

if __name__ == "__main__":
    main()
