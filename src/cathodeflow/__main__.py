"""`python -m cathodeflow` is the `cathodeflow` command."""

from cathodeflow.cli import main

if __name__ == "__main__":
    main()
