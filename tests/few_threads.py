"""Small blocks: several rows share a block, and every loop of a kernel goes round, on problems of a few cells."""

from lattice.kernels import hidden_transpose, launch

FEW = (
    (launch, {"THREADS": 64, "LATTICE_THREADS": 3, "REACH_THREADS": 64, "SCAN_THREADS": 64}),
    (hidden_transpose, {"MOST_THREADS": 32, "MOST_BLOCKS": 2, "SEARCHED": 4}),
)
"""More than a warp in `THREADS`; else fewer threads, blocks and places than there is work for."""


def take_few(monkeypatch) -> None:
    """Launch with `FEW` threads until the end of a test."""
    for module, values in FEW:
        for name, value in values.items():
            monkeypatch.setattr(module, name, value)
