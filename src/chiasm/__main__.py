"""`python -m chiasm` is `chiasm`."""

from chiasm.cli import main

if __name__ == "__main__":
    main(prog_name="chiasm")
