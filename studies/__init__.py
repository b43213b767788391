"""Programs that take packages and minutes, each run by `python -m studies.NAME` from the root of the repository."""
