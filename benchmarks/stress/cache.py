"""An install that nobody may write to: numba's cache finds no place, and the library works, quietly.

The two packages are laid out as an installer does, read-only. Where this process is root, calls run as another user,
since root may write anywhere.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from .. import record

NOBODY = "65534"
CALL = """
import numpy as np, lattice, samplers
one = np.ones(1, int)
loss = lattice.transducer_loss(np.zeros((1, 1, 2, 2), np.float32), np.ones((1, 1), int), one, one)
assert abs(loss[0] - 1.386294) < 1e-5, loss
assert lattice.__file__.startswith({site!r}), lattice.__file__
"""


def laid_out(folder: Path) -> Path:
    """A directory with the packages, that cannot be written to."""
    site = folder / "site"
    for package in ("lattice", "samplers"):
        shutil.copytree(record.ROOT / package, site / package, ignore=shutil.ignore_patterns("__pycache__"))
    for path in [site, *site.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    folder.chmod(0o755)
    return site


def interpreter(user: list[str]) -> str | None:
    """An interpreter of this version that the user may run; a virtual environment may lie where it may not look."""
    for python in (sys.executable, f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"):
        if subprocess.run([*user, python, "-c", "pass"], capture_output=True, cwd="/").returncode == 0:
            return python
    return None


def call(site: Path, user: list[str], python: str, environment: dict) -> dict:
    packages = [path for path in sys.path if path.endswith("site-packages")]
    variables = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join([str(site), *packages]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        [*user, python, "-W", "error", "-c", CALL.format(site=str(site))],
        cwd="/",
        text=True,
        env={**variables, **environment},
        capture_output=True,
    )
    return {"returned": done.returncode, "said": (done.stdout + done.stderr)[-1500:]}


def run(options) -> dict:
    """The record."""
    user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"] if os.getuid() == 0 else []
    python = interpreter(user)
    with tempfile.TemporaryDirectory() as folder:
        site = laid_out(Path(folder))
        table = {
            "no home": call(site, user, python, {}),
            "home that is not there": call(site, user, python, {"HOME": "/nonexistent"}),
            "home read-only": call(site, user, python, {"HOME": str(site)}),
            "NUMBA_CACHE_DIR read-only": call(
                site, user, python, {"HOME": "/nonexistent", "NUMBA_CACHE_DIR": str(site)}
            ),
        }
        for path in [site, *site.rglob("*")]:
            path.chmod(0o755)
    record.show(
        "numba's cache in a read-only install",
        {name: {"returned": row["returned"], "said": len(row["said"])} for name, row in table.items()},
        ("returned", "said"),
    )
    return {
        "user": NOBODY if user else "own",
        "rows": table,
        "failures": [name for name, row in table.items() if any(row.values())],
    }
