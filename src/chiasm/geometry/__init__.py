"""Pinhole cameras: depths, points, normals and pixels."""
