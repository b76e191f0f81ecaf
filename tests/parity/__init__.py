"""Stored outputs of the published implementation, held against this one, case by case."""
