"""Heads: stored features in, predictions out. A head never sees a pixel, and never knows which encoder it serves."""
