"""Baselines that protocols compare with."""
