"""Datasets: folders and public sets in, tensors in chiasm's units out."""
