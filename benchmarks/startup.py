"""Seconds of the first call: compiling every kernel, and loading them from numba's cache on disk."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

from . import record


def child() -> dict:
    """Import and warm up in this process."""
    begin = time.perf_counter()
    import lattice

    imported = time.perf_counter()
    lattice.warm_up()
    return {"import": imported - begin, "warm_up": time.perf_counter() - imported}


def main(options) -> None:
    table = {}
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "NUMBA_CACHE_DIR": cache}
        for name in ("compiling", "from the cache"):
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.startup"],
                cwd=record.ROOT,
                env=environment,
                capture_output=True,
                text=True,
                check=True,
            )
            table[name] = json.loads(done.stdout)
    record.show("first call, seconds (float32)", table, ("import", "warm_up"))
    record.write(options.json, {"benchmark": "startup", "rows": table})


if __name__ == "__main__":
    argparse.ArgumentParser().parse_args()
    print(json.dumps(child()))
