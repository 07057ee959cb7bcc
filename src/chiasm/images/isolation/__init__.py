"""Decoding in worker processes that may die without taking the job along."""
