"""Ctrl-C in a long call: it ends soon, and the library works on in the same process."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
@pytest.mark.parametrize("door", ["logits", "joint"])
def test_ctrl_c(door):
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.stress.interrupt", "--door", door, "--cells", "60000"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["interrupted"] and told["same bits after"] and not told["threads at work"], told
    assert told["seconds to stop"] < 2.0, told
