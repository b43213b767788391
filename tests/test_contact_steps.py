"""The steps of the first contact with a GPU.

The tests are of their seconds and command lines, of what their output means, and of how they are shown.
"""

import inspect
import os

import pytest

from benchmarks.gpu import contact_commands, contact_steps, contact_table, problems, process, sections
from benchmarks.gpu.contact_commands import Ended, Profile, Sanitizer
from benchmarks.gpu.contact_steps import FIRST, TOTAL


def test_the_seconds_of_a_call_are_planned():
    assert contact_steps.planned(FIRST) <= TOTAL[1] == 400
    worst = {"steps": {step.name: {"state": "cut"} for step in FIRST}}
    assert contact_steps.planned(contact_steps.second(worst)) <= TOTAL[2] == 360
    assert contact_steps.planned(contact_steps.second(None)) <= TOTAL[2]


def test_the_second_call_asks_again_what_failed_or_was_not_run():
    failures = [
        {"id": f"{contact_steps.KERNELS}::test_kernel[{n}]", "when": "call", "message": "off"} for n in range(2)
    ]
    states = {
        "device": {"state": "cut"},
        "joint": {"state": "failed"},
        "ncu": {"state": "not run"},
        "stages": {"state": "ok"},
    }
    kernels = {"state": "failed", "failures": failures}
    ids, device, ncu = contact_steps.failed_before({"steps": {"kernels": kernels, **states}})
    assert ids.commands["tests"].line(9)[-2:] == [failure["id"] for failure in failures] and ids.again
    assert device.name == "again device" and device.commands == {"device": FIRST[4].commands["device"]}
    assert ncu.name == "again ncu" and ncu.again
    missing = contact_steps.failed_before({"steps": {"kernels": {"state": "ok"}, "device": {}}})
    assert [step.name for step in missing] == ["again device", "again stages", "again ncu"]
    (nothing,) = contact_steps.failed_before({"steps": {step.name: {"state": "ok"} for step in FIRST}})
    assert nothing.reason == "the first call left nothing open"


def test_tests_run_side_by_side_where_the_plugins_are_there(monkeypatch):
    monkeypatch.setattr(process, "importable", lambda module: True)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(16))
    flags = FIRST[2].commands["kernels"].line(70)
    assert " -n 8 --timeout 30 --timeout-method thread --maxfail=40 -p benchmarks.gpu.failures " in " ".join(flags)
    monkeypatch.setattr(process, "importable", lambda module: False)
    assert not {"-n", "--timeout"} & set(FIRST[2].commands["kernels"].line(70))


def test_what_a_sanitizer_had_found_when_its_time_was_up_counts():
    started = "========= COMPUTE-SANITIZER\n"
    assert "error" not in Sanitizer(("memcheck",)).read(Ended(None, started))
    found = Sanitizer(("memcheck",)).read(Ended(None, started + "========= Invalid __global__ read of size 4 bytes\n"))
    assert "Invalid __global__ read" in found["error"]
    assert Sanitizer(("memcheck",)).read(Ended(0, "========= ERROR SUMMARY: 0 errors\n")) == {
        "exit_code": 0,
        "found": 0,
    }


PROFILE = """==PROF== Disconnected from process 7
[7] python3.12@127.0.0.1
  lattice::kernels::emissions::emit_cuda(Array<float, 2>) (3188, 1, 1)x(256, 1, 1), Context 1, Stream 7, \
Device 0, CC 9.0
    Section: GPU Speed Of Light Throughput
    ----------------------- ----------- ------------
    Metric Name             Metric Unit Metric Value
    ----------------------- ----------- ------------
    Duration                         us     1,052.48
    DRAM Throughput                   %        41.20
  _ZN7lattice7kernels6hidden11hidden_cudaB2v1E5Array (264, 1, 1)x(256, 1, 1), Context 1, Stream 7, Device 0, CC 9.0
    Duration                         us        10.50
"""


def test_a_profile_is_read_kernel_by_kernel():
    found = Profile().read(Ended(0, PROFILE))["launches"]
    assert found == [
        {"kernel": "emit", "Duration (us)": 1052.48, "DRAM Throughput (%)": 41.2},
        {"kernel": "hidden", "Duration (us)": 10.5},
    ]
    refused = Profile().read(Ended(1, "==ERROR== ERR_NVGPUCTRPERM - no permission"))
    assert "ERR_NVGPUCTRPERM" in refused["error"]


def test_the_end_of_a_call_is_short_whatever_happened():
    failures = [
        {"id": f"tests/cuda/test_kernels.py::test_kernel[{n}]", "when": "call", "message": "E " + "x" * 900}
        for n in range(60)
    ]
    broken = {name: {"error": "y" * 5000} for name in ("a", "b")}
    steps = {step.name: {"state": "failed", "seconds": 9.0, "results": broken, "failures": failures} for step in FIRST}
    text = contact_table.closing({"call": 1, "said": "0 of 10 steps ok", "steps": steps})
    assert len(text) < 12_000 and len(text.splitlines()) < 60 and text.splitlines()[-11].startswith("call 1")
    assert f"and {10 * 60 - contact_table.FAILURES} more" in text


@pytest.mark.parametrize(
    ("name", "results", "said"),
    [
        ("env", {"env": {"gpu": [{"name": "H", "driver_version": "580"}], "cores": 16, "versions": {"numba": "0.68"},
                         "nvvm": [1]}},
         "H, driver 580; 16 cores; numba 0.68; 1 libnvvm"),
        ("contact", {"attempts": {"the normal way": {"launched": True, "compile": 0.5, "wait": 0.25}},
                                  "contact": {"oracle float32": {"joint": 1e-7}, "oracle bfloat16": {"joint": 0.004},
                                              "dropout": {"ratio": 1.25}, "x": {"error": "e"}}},
         "wait 0.25 s; oracle float32 1e-07, bfloat16 4e-03, dropout 1.25 times the time; wrong: x"),
        ("headline", {"headline": {"bfloat16, 512 MiB": {"seconds": 1.45}}}, "bf16, 512 MiB 1.45 s"),
        ("device", {"device": {"copy": {"bandwidth": 3e12}, "recursion": {"rows": {"B=1": {"step": 6.3e-7}}}}},
         "copy 3000 GB/s; bf16 products - TFLOP/s; a step of the recursion B=1 0.63 us"),
        ("stages", {"stages": {"joint default untrained bfloat16": {"seconds": 0.016, "rows": {
            "all, watched": {"share": 1.0}, "emit_cuda": {"share": 0.1}, "hidden_cuda": {"share": 0.3}}}}},
         "joint default untrained bf16 16 ms, most hidden_cuda 30 %"),
        ("ncu", {"ncu": {"launches": [{"kernel": "emit"}, {"kernel": "emit"}]}}, "2 launches: emit"),
        ("logits", {"logits": {"long float32": {"rows": {"out=logits": {"ratio": 2.2}}}}}, "in copies: long f32 2.2"),
        ("again joint", {"joint": {"default float32": {"rows": {"untrained, 1 GiB": {"ratio": 0.76}}}}},
         "default f32 0.76/-"),
        ("together", {"doors": {"passed": 7, "exit_code": 0}, "memcheck": {"found": 0, "exit_code": 0}},
         "doors: 7 passed; memcheck: 0 errors"),
    ],
)  # fmt: skip
def test_a_line_of_the_table_holds_the_numbers_that_matter(name, results, said):
    assert said in contact_table.line(name, {"state": "ok", "seconds": 1.0, "results": results})
    assert "Error" not in contact_table.line(name, {"state": "ok", "seconds": 1.0, "results": {}})


def test_every_section_of_a_step_has_what_it_is_asked_for():
    shapes = {"logits": problems.LOGITS, "joint": problems.JOINT}
    for step in (*FIRST, *contact_steps.second(None)):
        for command in step.commands.values():
            if isinstance(command, contact_commands.Section):
                name, seconds, dtypes, given = sections.read_arguments(command.line(30)[3:])
                assert seconds == 26 and set(dtypes) <= {"float32", "bfloat16", "tf32", "short"}
                assert set(given.pop("shapes", ())) <= set(shapes.get(name, ())), step.name
                inspect.signature(sections.SECTIONS[name]).bind(None, *dtypes, **given)
