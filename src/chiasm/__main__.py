"""`python -m chiasm` is `chiasm`.

`python -m` puts the current folder first on the import path. It is taken off before anything else is imported, so that
a `json.py` beside the photographs does not run; it stays where chiasm itself was found there.
"""

import os
import sys

own = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))  # noqa: PTH120 - pathlib is not imported yet
here = os.path.realpath(os.curdir)
if here != own and os.path.realpath(sys.path[0]) == here:
    del sys.path[0]

from chiasm.cli import main  # noqa: E402 - only after the path is clean

if __name__ == "__main__":
    main(prog_name="chiasm")
