"""Encoders, codecs, stores and heads joined: images to a store, and from a store to predictions."""
