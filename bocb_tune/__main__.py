"""`python -m bocb_tune`: the command line."""

from bocb_tune.cli.main import main

if __name__ == "__main__":
    main()
