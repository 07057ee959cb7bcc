"""Arithmetic on feature maps that is nobody's own: layout (pads, crops, tiles) and transforms of the plane."""
