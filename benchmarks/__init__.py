"""Measurements: `python -m benchmarks {joint,logits,memory} --json FILE`. See benchmarks/README.md."""
