"""Faults of `seeds.py` that change nothing, and why."""

EQUIVALENT = ()
"""(kernel, kind, what, line of the source, why): regular expressions that match in full, but for the kind and the reason."""
