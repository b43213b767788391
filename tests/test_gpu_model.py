"""The model of a GPU's time: what a call launches and what that costs, by hand; what was reckoned before, again."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.gpu import costs, dry, machines, model, problems, work
from benchmarks.gpu.dry import Block
from benchmarks.gpu.work import Step

B, T, U, V, H = 2, 8, 2, 7, 5
CELLS = B * T * (U + 1)
TINY = problems.full(B, T, U, V, H)
HALF = dry.Kind((0.25, 0.5), 0.25)
BEFORE = model.RESULTS / "model-before-2026-11-28.json"
"""The walks of the code as it was before recursion, activations, loops and host path were made anew."""


def sums(blocks):
    """Name -> calls, rows, elements of all its steps together."""
    found = {}
    for block in blocks:
        for step in block.steps:
            numbers = np.array([1, step.rows, step.elements])
            found[step.name] = found.get(step.name, 0) + block.repeat * numbers
    return {name: tuple(int(number) for number in numbers) for name, numbers in found.items()}


def least(dtype):
    """The smallest limit that works, in which one example has room."""
    with pytest.raises(ValueError, match="expected at least") as refused:
        dry.joint(TINY, HALF, dtype, 1)
    return int(re.search(r"at least (\d+)", str(refused.value))[1])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("groups", [1, 2])
def test_a_small_joint_by_hand(dtype, groups):
    blocks = dry.joint(TINY, HALF, dtype, 1 << 20 if groups == 1 else least(dtype))
    found, listed, kept = sums(blocks), 0.75 * CELLS, 0.25 * CELLS
    assert found["bound_tanh_cuda"][1:] == (CELLS, CELLS * H)
    assert found["emit_cuda"][1:] == (listed, listed * V)
    assert found["hidden_tanh_cuda"][1:] == (listed + kept, (listed + kept) * H)
    assert found["gradient_cuda"][1:] == (kept, kept * V)
    assert found["hidden @ weight.T"][2] == (listed + kept) * H * V
    assert found["dlogits @ weight"][2] == found["dlogits.T @ hidden"][2] == kept * H * V
    assert found["to_frames_tanh_cuda"][1:] == found["to_slots_tanh_cuda"][1:] == (kept, kept * H)
    # Of each group: numbered once; two rounds that list cells, one that finds none, and the list of occupied cells.
    assert found["frames"][:2] == (groups, B * T) and found["wait"][0] == 4 * groups
    assert found["list_cuda"] == (4 * groups, 4 * B * T, 4 * CELLS)


def test_untrained_lattices_are_certified_in_fewer_rounds():
    found = sums(dry.joint(TINY, dry.Kind((1.0,), 1.0), "float32", 1 << 20))
    assert found["wait"][0] == 2 and found["emit_cuda"][1] == found["gradient_cuda"][1] == CELLS


def test_bytes_and_chains_of_a_small_joint():
    steps = {step.name: step for block in dry.joint(TINY, HALF, "bfloat16", 1 << 20) for step in block.steps}
    kept = CELLS // 4
    assert steps["gradient_cuda"].bytes == kept * (V * (4 + 2) + 8 + 4 + 4 + 16)
    assert steps["gradient_cuda"].count == "gradient anew, bias, to bfloat16"
    assert steps["hidden_tanh_cuda"].bytes == kept * (H * 2 + 16) and steps["hidden_tanh_cuda"].rows == kept
    assert steps["hidden_tanh_cuda"].count == "hidden tanh bfloat16"
    assert steps["dlogits.T @ hidden"].shape == (V, kept, H)
    assert steps["sums_cuda"].chain == T + U


@pytest.mark.parametrize("packed", [False, True])
def test_given_logits_by_hand(packed):
    shape = problems.Shape(np.array([6, 4]), np.array([2, 1]), V, 0, packed)
    found = sums(dry.logits(shape, "float32"))
    assert found["emit_cuda"] == found["gradient_cuda"] == (1, 26, 26 * V)
    assert found["clear_rows_cuda"][1] == (26 if packed else 36) and "wait" not in found


def test_what_no_kernel_has_filled_in_is_not_read():
    with dry.recorded(HALF), pytest.raises(RuntimeError, match="no kernel has filled in"):
        dry.arrays.cupy().empty(3, np.int64).get()


def test_the_stand_in_is_put_away():
    before = dry.arrays.cupy, dry.ptx.run, dry.Cuda.matmul, dry.Tiler.tiles, dry.layout.frames_of
    with dry.recorded(HALF):
        pass
    assert before == (dry.arrays.cupy, dry.ptx.run, dry.Cuda.matmul, dry.Tiler.tiles, dry.layout.frames_of)


def test_neighbours_that_are_alike_are_one():
    one, other = (Block(tile, (Step("wait", "wait"),)) for tile in (True, False))
    assert dry.compressed([one, one, other, one]) == [one._replace(repeat=2), other, one]
    blocks = dry.compressed(dry.joint(TINY, HALF, "float32", least("float32")))
    assert model.unpacked(model.packed(blocks)) == blocks


RATES = costs.Rates(
    machines.H100._replace(gap=1.0, copy=10.0, cache=20.0, cache_size=100, issue=2.0, clock=4.0),
    counts={"emit": costs.Count(64, 3, 8)},
    host=costs.Host(forward_tile=6.0, backward_tile=8.0, launch=1.0, wait=0.5, frame=0.25, door=2.0, faster=1.0),
)


@pytest.mark.parametrize(
    ("rows", "elements", "moved", "chain", "seconds"),
    [
        (2, 0, 0, 0, 1 + 2 * 3 / 2),
        (0, 5, 0, 0, 1 + 5 * 64 / 32 / 2),
        (0, 0, 90, 0, 1 + 90 / 20),
        (0, 0, 200, 0, 1 + 200 / 10),
        (0, 0, 90, 3, 1 + 3 * 8 / 4),
    ],
)
def test_what_a_kernel_costs_by_hand(rows, elements, moved, chain, seconds):
    step = Step("kernel", "emit_cuda", "emit bfloat16", rows, elements, moved, chain)
    assert costs.device_seconds(step, RATES) == pytest.approx(seconds)


def test_what_a_product_costs_by_hand():
    full = (128 * 132, 512, 256)
    assert costs.filled(full, 132) == 1.0
    # One more row of tiles is a second round for one of 132 multiprocessors; small tiles lose less.
    assert costs.filled((128 * 133, 512, 256), 132) == pytest.approx(0.9 * 266 / (3 * 132))
    # Sums are split where tiles are few.
    assert costs.filled((1024, 100_000, 512), 132) == pytest.approx(16 * 8 / 132)
    rates = RATES._replace(machine=RATES.machine._replace(products={"float32": 2e9}))
    step = Step("product", "hidden @ weight.T", bytes=1, shape=full)
    assert costs.device_seconds(step, rates) == pytest.approx(1 + 2 * 128 * 132 * 512 * 256 / 2e9)
    # A product with one row is as long as its bytes, however slow cuBLAS may be.
    slow = RATES._replace(machine=RATES.machine._replace(products={"float32": 1.0}))
    assert costs.device_seconds(step._replace(shape=(1, 512, 256)), slow) == pytest.approx(1 + 1 / 20)


def test_host_and_device_run_side_by_side():
    kernel, wait = Step("kernel", "emit_cuda", "emit", rows=2), Step("wait", "wait")
    assert costs.device_seconds(kernel, RATES) == 4.0
    # Launched at 3, 4, 5; done at 7, 11, 15; the wait ends then.
    found = costs.predict([Block(False, (kernel, kernel, kernel, wait))], RATES)
    assert (found.total, found.host, found.device) == (15.5, 5.5, 12.0)
    assert found.rows["emit_cuda"] == {"seconds": 12.0, "calls": 3}
    # Two tiles of 6 s of the host each: the device waits for the host, and ends 4 s behind it.
    found = costs.predict([Block(True, (kernel,), repeat=2)], RATES)
    assert (found.total, found.host) == (2 + 2 * 6 + 4, 14)
    backward = Step("kernel", "gradient_cuda", "gradient")
    assert sum(costs.host_seconds(Block(True, (backward, kernel)), RATES)) == 8.0
    slower = RATES._replace(host=RATES.host._replace(driver=0.5))
    assert costs.host_seconds(Block(True, (backward, kernel)), slower) == [4.5, 4.5]
    assert costs.host_seconds(Block(False, (kernel, wait)), slower) == [1.5, 0.0]
    frames = Step("frames", "frames", rows=8)
    assert costs.host_seconds(Block(False, (frames, wait, kernel)), RATES) == [2.0, 0.0, 1.0]


CHANGED = ("hidden_tanh_cuda", "sums_cuda")


def test_a_change_of_a_count_changes_the_prediction():
    case = model.Case("joint", "B=32", "untrained", "bfloat16", "256 MiB")
    blocks = model.walk(case)
    hidden = "hidden tanh, factors bfloat16"
    halved = {hidden: {"instructions": 10.5}, "sums, scaled": {"instructions": 351, "cycles": 50}}
    before, after = (
        model.predicted(case, blocks, costs.Rates(counts=costs.counts_of({"kernels": kernels})))
        for kernels in ({hidden: {"instructions": 21}}, halved)
    )
    # Bytes are the bound now.
    assert after["rows"]["hidden_tanh_cuda"]["seconds"] < 0.7 * before["rows"]["hidden_tanh_cuda"]["seconds"]
    assert after["rows"]["sums_cuda"]["seconds"] < 0.25 * before["rows"]["sums_cuda"]["seconds"]
    assert after["rows"]["emit_cuda"] == before["rows"]["emit_cuda"]
    saved = sum(before["rows"][name]["seconds"] - after["rows"][name]["seconds"] for name in CHANGED)
    assert saved > 5e-4 and before["device"] - after["device"] == pytest.approx(saved, rel=0.1)
    # Where the host is behind, it hides a part.
    assert saved > before["seconds"] - after["seconds"] > 0


def test_a_host_of_a_record_changes_the_prediction():
    record = {"host": {"bfloat16": {"forward tile": {"us": 45.0}, "backward tile": {"us": 95.0}, "take": {"us": 1}}}}
    host = costs.host_of(record, "bfloat16")
    wanted = costs.Host(forward_tile=45e-6, backward_tile=95e-6, faster=1.0, driver=2.5e-6)
    assert host == pytest.approx(wanted)
    record["host"]["bfloat16"]["emit"] = {"us": 8.0}
    assert costs.host_of(record, "bfloat16") == pytest.approx(wanted._replace(launch=8e-6))
    assert costs.host_of(record, "float32") == costs.host_of(None, "bfloat16") == costs.Host()


def test_kernels_that_are_not_known_are_named(monkeypatch):
    def spin_cuda(row):
        pass

    with pytest.raises(work.Unknown, match=r"spin_cuda is not in WORK of benchmarks/gpu/work\.py"):
        work.step_of(SimpleNamespace(py_func=spin_cuda), (np.zeros(3),))
    with pytest.raises(work.Unknown, match=r"spin_cuda has no count as 'spin'.*COUNTS of benchmarks/gpu/costs\.py"):
        costs.device_seconds(Step("kernel", "spin_cuda", "spin"), RATES)
    monkeypatch.delitem(work.WORK, "hidden")
    with pytest.raises(work.Unknown, match="hidden_tanh_cuda"):
        dry.joint(TINY, HALF, "float32", 1 << 20)


def test_kernels_that_go_another_way_have_counts_of_their_own():
    """Hidden vectors of factors, and sums of scaled numbers, by the arguments that such kernels take."""
    rows = np.zeros((2, 3), np.float32)
    of_hidden = {"hidden": rows, "encoder": rows, "far": False}
    assert work.hidden(SimpleNamespace(**of_hidden, factors=rows)).variant == ", factors"
    assert work.hidden(SimpleNamespace(**of_hidden, factors=rows[:0])).variant == ""
    of_sums = {"blank_score": rows[0], "blocks": (4, 3), "longest": 9}
    assert work.sums(SimpleNamespace(**of_sums, bracket=True))[1:] == (9, 9 * 16, 9, ", scaled")
    assert work.sums(SimpleNamespace(**of_sums)).variant == ""
    assert {"hidden tanh, factors", "bound tanh, factors", "sums, scaled"} <= costs.COUNTS.keys()


def test_far_entries_are_made_of_the_inputs():
    """Rows hold factors of both problems, but those of trained-like have a far entry."""
    counts = {}
    for kind in ("untrained", "trained-like"):
        blocks = model.walk(model.Case("joint", "B=32", kind, "float32", "256 MiB"))
        counts[kind] = {step.count for block in blocks for step in block.steps}
    assert {"factors", "hidden tanh, factors", "bound tanh, factors"} < counts["untrained"]
    assert {"factors", "hidden tanh", "bound tanh"} < counts["trained-like"]
    assert not any("tanh, factors" in count for count in counts["trained-like"])


PLANNED = {
    "joint B=32 untrained float32 256 MiB": (62e-3, 0.76),
    "joint B=32 untrained bfloat16 256 MiB": (18e-3, 2.6),
    "joint B=32 trained-like float32 256 MiB": (13e-3, 0.16),
    "joint B=32 trained-like bfloat16 256 MiB": (9e-3, 1.25),
    "joint headline untrained float32 512 MiB": (4.9, 0.76),
    "joint headline untrained bfloat16 512 MiB": (1.45, 2.7),
    "joint headline trained-like bfloat16 512 MiB": (0.42, 0.77),
    "logits long float32": (4.9e-3, 2.2),
    "logits long bfloat16": (3.7e-3, 3.4),
}
"""Seconds and ratio on an H100 that were reckoned by hand for the code as it was, from the same counts."""


@pytest.mark.parametrize("name", PLANNED)
def test_what_was_reckoned_by_hand_is_reproduced(name):
    case = next(
        case
        for case in model.cases((*model.SHAPES, "long"), dry.KINDS, model.PRECISIONS, model.LIMITS)
        if case.name == name
    )
    known = json.loads(BEFORE.read_text())
    found = model.predicted(case, model.unpacked(known["walks"][name]), costs.Rates())
    assert (found["seconds"], found["ratio"]) == pytest.approx(PLANNED[name], rel=0.2)


def test_a_record_is_put_beside_the_prediction(tmp_path, capsys):
    case = model.Case("logits", "long", "", "float32", "")
    rates = costs.Rates(counts=costs.counts_of(None))
    found = model.predicted(case, model.walk(case), rates)
    rows = {name: {**row, "seconds": 1.1 * row["seconds"]} for name, row in found["rows"].items()}
    rows["emit_cuda"]["seconds"] *= 1.5
    rows["sums_cuda"]["seconds"] /= 2
    rows["between"] = {"seconds": 1.0}
    taken = {"seconds": 2 * found["seconds"], "rows": rows}
    record = {"environment": {"gpu": [{"name": "NVIDIA H200"}]}, "sections": {"stages": {"logits long float32": taken}}}
    (tmp_path / "record.json").write_text(json.dumps(record))
    out = tmp_path / "out.json"
    options = ("--against", str(tmp_path / "record.json"), "--counts", "none", "--host", "none", "--json", str(out))
    assert model.main([*options, "--machines", "H100"]) == 0
    compared = json.loads(out.read_text())["against"]["H100"]["logits long float32"]
    assert compared["off"] == ["emit_cuda", "sums_cuda", "in all"]
    assert compared["rows"]["emit_cuda"]["quotient"] == pytest.approx(1.65)
    assert compared["rows"]["between"]["measured"] == 1.0
    printed = capsys.readouterr().out
    assert "off by more than 1.4: emit_cuda, sums_cuda, in all" in printed
    assert "joint default untrained bfloat16: not in the record" in printed
    model.main(list(options))
    assert list(json.loads(out.read_text())["machines"]) == ["H200"]


def test_a_machine_takes_the_rates_that_were_measured():
    products = {name: {"one": 1e12, "other": 3e12} for name in ("float32", "tf32", "bfloat16 to float32")}
    device = {"copy": {"bandwidth": 5.0, "seconds": 1}, "cublas": {"rows": products}}
    machine = machines.machine_of({"sections": {"device": device}}, machines.H100)
    assert machine.copy == 5.0 and machine.products == dict.fromkeys(("float32", "tf32", "bfloat16"), 2e12)
    assert machines.machine_of({}, machines.H100) == machines.H100
    assert set(machines.SOURCES) == set(machines.Machine._fields)


def test_the_command_writes_its_record(tmp_path, capsys):
    out = tmp_path / "model.json"
    options = "--shapes mandarin long --precisions float32 tf32 --machines H200 --counts none --host none --json"
    assert model.main([*options.split(), str(out)]) == 0
    record = json.loads(out.read_text())
    assert list(record["predictions"]["H200"]) == ["logits mandarin float32", "logits long float32"]
    assert record["walks"].keys() == {"logits long float32"} and record["counts"]["sums"]["cycles"] == 1100
    printed = capsys.readouterr().out
    assert "H200 logits mandarin float32" in printed and "emit_cuda" in printed


def test_of_two_records_of_a_day_the_one_from_before_is_older(tmp_path, monkeypatch):
    monkeypatch.setattr(model, "RESULTS", tmp_path)
    assert model.record_of(None, "instructions") is None
    for name in ("before-2026-11-28", "after-2026-11-28", "zebra-2026-11-27"):
        (tmp_path / f"instructions-{name}.json").write_text(json.dumps(name))
    assert model.record_of(None, "instructions") == "after-2026-11-28" and model.record_of("none", "x") is None
