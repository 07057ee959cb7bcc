"""chiasm: encode an image once; every vision task is then a cheap head on what was stored.

Importing this package is instant and imports neither torch nor lance; the names below arrive on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chiasm.flow.pipeline import Pipeline as Pipeline
    from chiasm.images import read as read

__version__ = "0.1.0.dev0"

__all__ = ["Pipeline", "__version__", "read"]

_HOMES = {"Pipeline": "chiasm.flow.pipeline", "read": "chiasm.images"}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'chiasm' has no attribute {name!r}; there are {', '.join(__all__)}")
