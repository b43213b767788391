"""The model of a GPU's time where arcs take several frames, and with dropout: what a call launches, and its costs."""

from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import topologies
from benchmarks.gpu import costs, dry, model, problems, work

B, T, U, V, H = 2, 8, 2, 9, 6
CELLS = B * T * (U + 1)
TINY = problems.full(B, T, U, V, H)
HALF = dry.Kind((0.25, 0.5), 0.25)
LISTED, KEPT = 3 * CELLS // 4, CELLS // 4
TIMES = {"tdt": 4, "multiblank": 2}
"""How often the bounds of a cell make its hidden vector: for the pair, and for five steps or four, two at a time."""


def walked(name, dtype="float32"):
    """Name -> all steps, each as often as it comes."""
    found = {}
    for block in dry.joint(TINY, HALF, dtype, 1 << 20, topology=topologies.VARIANTS[name]):
        for step in block.steps:
            found.setdefault(step.name, []).extend([step] * block.repeat)
    return found


def total(steps, name="elements"):
    return sum(getattr(step, name) for step in steps)


@pytest.mark.parametrize("name", TIMES)
def test_a_small_joint_by_hand(name):
    topology, found = topologies.VARIANTS[name], walked(name)
    S, D = V + topology.tail, topology.steps.shape[1]
    (bounds,), emits, (gradient,) = (
        found[kernel] for kernel in ("bound_steps_tanh_cuda", f"emit_{name}_cuda", f"gradient_{name}_cuda")
    )
    assert (bounds.rows, bounds.elements) == (TIMES[name] * CELLS, TIMES[name] * CELLS * H)
    assert bounds.bytes == CELLS * (20 + 4 * (4 + D))
    # Durations are no part of the loop over a row, and a part of its logits.
    assert (total(emits, "rows"), total(emits)) == (LISTED, LISTED * V)
    assert total(emits, "bytes") == LISTED * (4 * S + 8 + 4 + 4 * (4 + D))
    assert (gradient.rows, gradient.elements) == (KEPT, KEPT * V)
    assert gradient.bytes == KEPT * (8 * S + 8 + 4 + 4 + 16 + 4 * D)
    assert total(found["hidden @ weight.T"]) == (LISTED + KEPT) * H * S
    # Four numbers of a cell are moved to the front, and one more for each step.
    assert sum(step.rows == KEPT for step in found["gather_cuda"]) >= 4 + D


@pytest.mark.parametrize("name", TIMES)
def test_sums_over_steps_take_a_lane_a_step(name):
    D, found = topologies.VARIANTS[name].steps.shape[1], walked(name)
    lanes, (upper, *_, last) = {5: 8, 4: 4}[D], found["step_sums_cuda"]
    # Three cells of a wave have room in a block.
    assert upper.chain == T + U
    # Of upper bounds, beta is made beside alpha: a round has two launches but the first, which has nothing to sum over.
    assert [step.elements // CELLS for step in found["step_sums_cuda"]] == [ways * lanes for ways in (2, 1, 2, 1, 2, 2)]
    assert last.bytes == 2 * CELLS * (4 * (2 + D) + 8)
    (posteriors,) = found["step_posteriors_cuda"]
    assert (posteriors.rows, posteriors.elements) == (B * T, CELLS * D)
    assert posteriors.bytes == CELLS * (4 * (4 + 2 * D) + 16)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", TIMES)
def test_kernels_are_counted_by_their_topology(name, dtype):
    counts = {step.count for steps in walked(name, dtype).values() for step in steps if step.kind == "kernel"}
    rounded, read = {"float32": ("", ""), "bfloat16": (", to bfloat16", " bfloat16")}[dtype]
    rows = {f"emit, bias, {name}", f"gradient anew, bias, {name}{rounded}", f"bound_steps tanh{read}"}
    assert rows | {"step_sums", "step_posteriors"} < counts
    for count in counts:
        known = costs.known(costs.COUNTS, count)
        assert known is not None and known.element + known.row, count


def test_two_arcs_are_counted_as_they_were():
    array = np.zeros(3, np.float32)
    given = {"blank_score": array, "blocks": (4, 2), "longest": 9}
    assert work.sums(SimpleNamespace(**given)) == (3, 6, 6 * 16, 9, "")


@pytest.mark.parametrize(("widest", "D", "rounds"), [(64, 5, 1), (81, 5, 2), (81, 4, 1), (129, 4, 2), (65, 9, 3)])
def test_a_wave_without_room_in_a_block_takes_rounds(widest, D, rounds):
    given = {"blank_score": np.zeros(3, np.float32), "step_score": np.zeros((D, 3)), "blocks": (4, 2), "longest": 9}
    lanes = {4: 4, 5: 8, 9: 16}[D]
    expected = 3, 6 * lanes, 6 * (4 * (2 + D) + 8), 9 * rounds, ""
    assert work.step_sums(SimpleNamespace(**given, widest=widest, threads=512)) == expected


def test_a_walk_knows_the_block_and_the_wave_of_its_sums():
    call = dry.joint(problems.full(2, 6, 80, 9, 6), HALF, "float32", 1 << 20, topology=topologies.VARIANTS["tdt"])
    found = {step.chain for block in call for step in block.steps if step.name == "step_sums_cuda"}
    # Eight lanes for each of 81 cells, of which 512 threads take 64.
    assert found == {2 * (6 + 80)}


def test_a_record_of_instructions_counts_for_the_step_kernels():
    case = model.Case("joint", "B=2", "untrained", "bfloat16", "256 MiB", "tdt")
    blocks, before = model.walk(case), costs.Rates()
    rows = {"step_sums": {"instructions": 100, "cycles": 473}, "emit, bias, tdt": {"instructions": 100}}
    after = before._replace(counts=costs.counts_of({"kernels": rows}))
    one, other = (model.predicted(case, blocks, rates)["rows"] for rates in (before, after))
    assert other["step_sums_cuda"]["seconds"] == pytest.approx(0.5 * one["step_sums_cuda"]["seconds"], rel=0.02)
    assert other["emit_tdt_cuda"]["seconds"] > 1.5 * one["emit_tdt_cuda"]["seconds"]
    assert other["gradient_tdt_cuda"] == one["gradient_tdt_cuda"]


@pytest.mark.parametrize(("kind", "made"), [("untrained", ", factors"), ("trained-like", "")])
def test_tdt_stands_beside_rnnt(kind, made):
    cases = list(model.cases(["B=2", "long"], [kind], ["float32"], ["256 MiB"]))
    names = [f"joint B=2 {kind} float32 256 MiB", f"joint B=2 {kind} float32 256 MiB tdt", "logits long float32"]
    assert [case.name for case in cases] == names and cases[1].launched_as == cases[1]
    walks = [model.walk(case) for case in cases[:2]]
    assert f"bound_steps tanh{made}" in {step.count for block in walks[1] for step in block.steps}
    two_arcs, tdt = (model.predicted(case, blocks, costs.Rates()) for case, blocks in zip(cases, walks))
    assert two_arcs["floor"] == tdt["floor"] and two_arcs["seconds"] < tdt["seconds"]
    assert not {"sums_cuda", "emit_cuda", "bound_tanh_cuda"} & tdt["rows"].keys()
    products = ("hidden @ weight.T", "dlogits @ weight", "dlogits.T @ hidden")
    # Five rows more of 1,024.
    assert sum(tdt["rows"][name]["seconds"] for name in products) == pytest.approx(
        sum(two_arcs["rows"][name]["seconds"] for name in products), rel=0.1
    )


def test_dropout_adds_to_what_makes_and_takes_hidden_vectors():
    plain, dropped = (dry.joint(TINY, HALF, "bfloat16", 1 << 20, dropout=chosen) for chosen in (None, (0.2, 1)))
    names = [[step.count for block in blocks for step in block.steps] for blocks in (plain, dropped)]
    drawn = {name for name in names[1] if ", dropout" in name}
    assert {name.replace(", dropout", "") for name in drawn} == set(names[0]) - (set(names[1]) - drawn)
    assert {name.split()[0] for name in drawn} == {"hidden", "bound", "to_frames", "to_slots"}
    known = costs.known(costs.COUNTS, "to_frames tanh, dropout bfloat16")
    assert known == costs.Count(31.6 + costs.DRAWN["to_frames"], 44)
    seconds = [costs.predict(blocks, costs.Rates()).device for blocks in (plain, dropped)]
    assert seconds[0] <= seconds[1] < 1.5 * seconds[0]
