"""What tests of every room need before they import anything."""

from __future__ import annotations

import runpy
from pathlib import Path

# Kept, since the operators that it names live as long as it does.
SCHEMAS = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "torchvision_schemas.py"))
SCHEMAS["define"]()
