"""Data-parallel training over MPI or NCCL, one program: see `__main__.py`."""
