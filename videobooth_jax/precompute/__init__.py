"""Frozen features written once, as a dataset of their own."""
