"""Heads: stored features in, predictions out. A head sees no pixel, and does not know which encoder it
serves."""
