"""Any public backbone as an encoder: `timm:NAME`, `hf:NAME_OR_FOLDER`, `onnx:FILE`, `tflite:FILE`.

    load(name) ──► adapter of its library ──► Opened: levels, sizes, preprocessing, run ──► ForeignEncoder

Each adapter says which levels a network has and runs it; what is the same for all is in `network.py`.
"""

from chiasm.encoders.catalogue import accept
from chiasm.encoders.foreign.loading import load, rest

__all__ = ["accept", "load", "rest"]
