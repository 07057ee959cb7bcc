"""Features to bytes and back: `transform` -> integer symbols -> `contexts` -> `entropy` -> `bitstream`.

Everything between the rounding and the bytes is integer arithmetic on integer tables, so that a packet
decodes to the same symbols on every machine; only the linear synthesis after them is floating point.
"""
