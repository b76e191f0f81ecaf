"""Start a two-phase training on rented machines: ``python3 -m launch --help``.

A launcher renders a shell script from frozen dataclasses; ``--dry-run`` prints it, otherwise bash
runs it. docs/launching.md tells the whole way.
"""
