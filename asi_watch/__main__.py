"""Run the command line as ``python -m asi_watch``."""

from asi_watch.cli import main

if __name__ == "__main__":
    main()
