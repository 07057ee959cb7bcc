"""Photographs and RAW files on disk to upright pixels, safely.

    files, folders ──find──► paths ──────┐
                                         ├─decode / DecoderPool──► Picture, Mosaic ──frame, tile──► Frame, tensors
    anything ──gather──► sources ────────┘           └──► ImageError with one word why

In: files that nobody vouches for. Out: a `Shot`, or `ImageError`, never anything else. A shot is a `Picture` (H x W x
3, uint8 or uint16, sRGB, upright, with the digest of the file) or, from a camera's RAW file, a `Mosaic` (H x W, uint16
counts in RGGB cells, upright, with its `Sensor`); `kind`, `sensor`, `size`, `tile` and `frame` are of both.

`decode` works in this process; `DecoderPool` decodes in processes that may crash or hang without taking the job
along. Importing this package does not import torch.
"""

from chiasm.images.decoder import decode, read
from chiasm.images.isolation.pool import DecoderPool
from chiasm.images.limits import Limits
from chiasm.images.listing import find
from chiasm.images.picture import Picture, uri_of
from chiasm.images.raw.headerless import stat_of
from chiasm.images.raw.mosaic import Mosaic, Shot
from chiasm.images.sources import Gathered, Source, gather

__all__ = [
    "DecoderPool",
    "Gathered",
    "Limits",
    "Mosaic",
    "Picture",
    "Shot",
    "Source",
    "decode",
    "find",
    "gather",
    "read",
    "stat_of",
    "uri_of",
]
