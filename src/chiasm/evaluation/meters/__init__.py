"""Meters: one score each, from predictions and targets."""
