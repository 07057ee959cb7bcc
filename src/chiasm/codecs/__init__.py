"""Features to bytes and back, a level at a time; `packet` puts the levels of one picture into one file.

    transform   fitted to a space: `bands` -> integer symbols -> `contexts` -> `entropy`
    plain       maps of any space, as 16-bit or 8-bit numbers
    pixels      a picture itself, without loss
    vector      vectors of any space, as numbers

Everything between the rounding and the bytes is integer arithmetic on integer tables, so that a stream decodes to the
same symbols on every machine; only the linear synthesis after them is floating point.
"""

from chiasm.codecs.named import NAMES, codec_named

__all__ = ["NAMES", "codec_named"]
