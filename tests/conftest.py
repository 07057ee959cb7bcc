"""What tests of every room need before they import anything."""

from __future__ import annotations

import runpy
from pathlib import Path

runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "torchvision_schemas.py"))["define"]()
