"""Encoders: pixels in, one pyramid of features out. Each model is one file, read from top to bottom."""
