"""Arithmetic on feature maps that is nobody's own: layout (pads, crops, tiles), transforms of the plane, amplitudes."""
