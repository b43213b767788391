"""Data-parallel training over MPI: the study on two and on three ranks, and that its own checks can fail."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import mpirun, why_no_mpi

if why_no_mpi():
    pytest.skip(why_no_mpi(), allow_module_level=True)
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent.parent
ONE_CORE_EACH = dict.fromkeys(("NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
# A machine of a test may run everything as root and have fewer cores than ranks; Open MPI wants to be told.
ALLOWED = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
}


def run(ranks, *program):
    launcher = [] if ranks is None else [mpirun(), "-n", str(ranks)]
    environment = {**os.environ, **ALLOWED, **ONE_CORE_EACH, "PYTHONPATH": str(ROOT)}
    command = [*launcher, sys.executable, *program]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=300)


@pytest.mark.parametrize("ranks, shares", [(None, "0:7"), (2, "0:3 3:7"), (3, "0:2 2:4 4:7")])
def test_ranks_compute_what_one_process_does(ranks, shares):
    done = run(ranks, "-m", "studies.data_parallel")
    assert done.returncode == 0, done.stderr
    first, full, sampled, steps = done.stdout.splitlines()
    assert first.startswith(f"ranks: {ranks or 1}, on the ") and first.endswith(f" {shares}")
    for line, kind in ((full, "full softmax"), (sampled, "sampled vocabularies")):
        assert line.startswith(f"{kind}: losses and gradients are those of one process")
    assert steps.startswith("10 steps of SGD") and steps.endswith("the same bits on every rank")


@pytest.mark.parametrize(
    "right, wrong, message",
    [
        ("        reduce(gradient)\n        gathered", "        gathered", "full softmax: .* from one process"),
        ("1 / B)", "1 / len(targets))", "full softmax: .* from one process"),
        (
            '"row_offset": rows.start',
            '"row_offset": 0',
            "sampled vocabularies: the ranks drew other ids than one process",
        ),
        ("        reduce(gradient)\n        flat", "        flat", "the weights of the ranks differ"),
    ],
    ids=["gradients not summed", "mean over the share", "row counter from 0", "steps not summed"],
)
def test_a_mistake_is_noticed(tmp_path, right, wrong, message):
    text = (ROOT / "studies" / "data_parallel" / "__main__.py").read_text()
    assert text.count(right) == 1
    (tmp_path / "mistaken.py").write_text(text.replace(right, wrong))
    done = run(2, str(tmp_path / "mistaken.py"))
    assert done.returncode != 0
    assert re.search(f"AssertionError: {message}", done.stderr), done.stderr
