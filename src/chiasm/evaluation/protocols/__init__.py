"""Protocols: what is measured, on what, and how."""
