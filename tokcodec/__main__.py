"""`python -m tokcodec`."""

from tokcodec.cli import main

if __name__ == "__main__":
    main()
