"""`python -m chiasm` is `chiasm`.

`python -m` puts the current folder first on the import path; it is taken off before anything else is imported, so that
a `json.py` beside the photographs does not run.
"""

import os
import sys

if os.path.realpath(sys.path[0] or os.curdir) == os.path.realpath(os.curdir) and not os.path.isdir("chiasm"):  # noqa: PTH112
    del sys.path[0]

from chiasm.cli import main  # noqa: E402 - only after the path is clean

if __name__ == "__main__":
    main(prog_name="chiasm")
