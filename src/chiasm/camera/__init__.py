"""Photographs on disk to upright sRGB pixels, safely.

    files, folders ──find──► paths ──decode / DecoderPool──► Picture ──frame, tile──► Frame, tensors
                                              └──► ImageError with one word why

In: files that nobody vouches for. Out: `Picture` (H x W x 3, uint8 or uint16, sRGB, upright, with the digest
of the file) or `ImageError`, never anything else. `decode` works in this process; `DecoderPool` decodes in
processes that may crash or hang without taking the job along. Importing this package does not import torch.
"""

from chiasm.camera.decoder import decode, read
from chiasm.camera.limits import Limits
from chiasm.camera.listing import find
from chiasm.camera.picture import Picture, uri_of
from chiasm.camera.pool import DecoderPool

__all__ = ["DecoderPool", "Limits", "Picture", "decode", "find", "read", "uri_of"]
