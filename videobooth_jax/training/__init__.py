"""Training: one loop.

What a phase trains and how is data (see :mod:`.config` and :mod:`.phases`).
"""
