"""The command that writes a folder of compiled kernels, and doors that run from the folder.

The machine of `tests/ptxrun` runs them.
"""

import argparse
import json
import shutil
from unittest import mock

import numpy as np
import pytest

import lattice
from benchmarks.gpu import prebuild
from lattice.kernels import launch, ptx, ptx_store
from lattice.kernels.activations import ACTIVATIONS
from tests import launches
from tests.cudasim import fake_cupy
from tests.few_threads import take_few
from tests.kernel_compare import BROAD
from tests.problems import BFLOAT16, DTYPES, joint_problem
from tests.ptxrun import driver


def loss(device, dtype):
    """Of the host, and of the device."""
    problem = joint_problem(0, batch=2, frames=4, labels=2, dtype=dtype)
    placed = [device.asarray(x) if x.dtype.kind not in "iu" else x for x in problem.args]
    ours, truth = (lattice.joint_transducer_loss(*arguments, **problem.options) for arguments in (placed, problem.args))
    return device.asnumpy(ours), truth


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The kernels of a loss in float32, for two architectures."""
    folder = tmp_path_factory.mktemp("ptx")
    with pytest.MonkeyPatch.context() as patch:
        for name in (ptx_store.FOLDER, ptx_store.ONLY):
            patch.delenv(name, raising=False)
        with driver.device() as device, launches.recorded(ptx.run) as found:
            loss(device, np.float32)
        for cc in prebuild.CAPABILITIES:
            assert not prebuild.check(prebuild.write(folder, cc, found))
    return folder


@pytest.fixture
def folder(written, tmp_path):
    """A copy, for tests that change it."""
    return shutil.copytree(written, tmp_path / "ptx")


def test_a_door_runs_from_the_folder_alone(folder, monkeypatch):
    monkeypatch.setenv("LATTICE_PTX", str(folder))
    monkeypatch.setenv("LATTICE_PTX_ONLY", "1")
    with driver.device() as device, mock.patch.dict(ptx._functions, clear=True):
        monkeypatch.setattr(ptx, "compile_kernel", None)
        ours, truth = loss(device, np.float32)
        np.testing.assert_allclose(ours, truth, rtol=1e-5)
        with pytest.raises(
            RuntimeError, match=r"LATTICE_PTX_ONLY=1, but .*sm_90 lacks lattice\.kernels\.\w+\.\w+_cuda\(.*uint16"
        ):
            loss(device, BFLOAT16)
        monkeypatch.setattr(fake_cupy.cupy.cuda.Device, "compute_capability", "89")
        ptx._functions.clear()
        with pytest.raises(RuntimeError, match="holds sm_80, sm_90, expected sm_89"):
            loss(device, np.float32)


def test_the_manifest_says_what_wrote_it(folder):
    manifest = json.loads((folder / "sm_80" / "manifest.json").read_text())
    versions = manifest["versions"]
    assert set(versions) == {"numba", "numba-cuda", "cuda", "ptx"} and all(versions.values())
    assert set(manifest["sources"]) == {"lattice.kernels"}
    assert any(
        line.startswith("lattice.kernels.emissions.emit_cuda(float32[2],") for line in manifest["kernels"].values()
    )


def test_what_cannot_be_translated_is_told(folder):
    path = next((folder / "sm_90").glob("locate_cuda*.ptx"))
    path.write_text(path.read_text().replace("ret;", "frobnicate.u32 %r1, %r2;\n\tret;"))
    (said,) = prebuild.check([path])
    assert said.startswith(f"sm_90/{path.name}: ") and "frobnicate" in said


def test_kernels_that_tests_change_are_kept_apart(monkeypatch):
    """A cache or a table that gave them to others would give code for blocks of four."""
    places, others, tables = [], set(), []
    for few in (False, True):
        if few:
            take_few(monkeypatch)
        with driver.device():
            places.append(ptx_store.cached(launch.kernels["to_slots_tanh_cuda"], ("int64",), (9, 0)))
            others.add(ptx_store.cached(launch.kernels["to_frames_tanh_cuda"], ("int64",), (9, 0)))
            tables.append(id(ptx._functions))
    places.append(ptx_store.cached(launch.kernels["to_slots_tanh_cuda"], ("int64",), (9, 0)))
    assert len(set(places)) == 3 and len(others) == 1 and len({*tables, id(ptx._functions)}) == 3


def test_devices_are_named_by_their_compute_capability():
    assert [prebuild.capability(text) for text in ("9.0", "12.1")] == [(9, 0), (12, 1)]
    for text in ("9", "sm_90", "9.0a", "", "09.0", "\u0669.0"):
        with pytest.raises(argparse.ArgumentTypeError, match="is no compute capability, expected as in 9"):
            prebuild.capability(text)


def test_an_architecture_that_the_compiler_replaces_is_refused(tmp_path, capsys):
    """NVVM takes sm_80 for 8.5, and the newest that it knows for 99.0."""
    assert prebuild.offered((8, 0)) and prebuild.offered((9, 0))
    for text in ("8.5", "99.0", "3.0"):
        with pytest.raises(SystemExit):
            prebuild.main([str(tmp_path / "ptx"), "--capability", text])
        assert f"--capability is {text}, for which the compiler does not write sm_" in capsys.readouterr().err
    assert not (tmp_path / "ptx").exists()


@pytest.fixture(scope="module")
def cases():
    return set(launches.of_cases())


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_launch_of_the_doors_has_a_case(cases, dtype):
    with driver.device() as device:
        found = launches.of_doors(device, [dtype], ACTIVATIONS if dtype == np.float32 else BROAD)
    lacking = found.keys() - cases
    assert not lacking, [(kernel.py_func.__name__, types) for kernel, types in lacking]
