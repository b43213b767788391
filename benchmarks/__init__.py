"""Measurements: `python -m benchmarks {joint,logits,memory,startup} --json FILE`. See benchmarks/README.md."""
