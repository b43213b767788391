"""Problems of `tests/problems.py` for "tdt" and "multiblank": lengths that have alignments, and logits of durations."""

from dataclasses import replace
from itertools import product

import numpy as np
from hypothesis import strategies as st

from lattice import Topology
from tests import problems, steps_oracle
from tests.steps_oracle import alignments, blank_ids, tail_of

NEMO = Topology("tdt", durations=(0, 1, 2, 3, 4), sigma=0.05)
STEPS = [
    NEMO,
    Topology("tdt", durations=(1, 2), delay_penalty=-0.2),
    Topology("tdt", durations=(0, 2, 3), sigma=0.3),
    Topology("multiblank", durations=(2, 4), sigma=0.05),
    Topology("multiblank", durations=(3,), delay_penalty=0.3),
]
PLACES = ("first", "middle", "last")


def name_of(value):
    """Test ids for topologies; everything else as `problems.name_of` has them."""
    if isinstance(value, Topology):
        return value.name + "-" + "_".join(map(str, value.durations)) + f"{value.delay_penalty:+g}"
    return problems.name_of(value)


def blank_at(place, vocab, topology):
    """The blank's id with all big ones below it: the first that can be, one in the middle, and -1."""
    if place == "last":
        return -1
    first = len(topology.durations) if topology.name == "multiblank" else 0
    return first if place == "first" else (first + vocab - 1) // 2


def labels_stay(topology):
    """May a label arc stay on its frame?"""
    return topology.name == "multiblank" or topology.durations[0] == 0


def feasible(frames, labels, topology):
    """Whether some alignment has so many frames and labels; counted by the closed form."""
    return np.isfinite(steps_oracle.uniform_loss(frames, labels, 2, topology))


def lengths_of(rng, batch, frames, labels, topology):
    """Pairs of lengths that have alignments, as `problems.random_lengths` makes them."""
    pairs = [pair for pair in product(range(1, frames + 1), range(labels + 1)) if feasible(*pair, topology)]
    found = [pairs[i] for i in rng.integers(0, len(pairs), batch)]
    found[0] = max(pair for pair in pairs)
    if batch > 2:
        found[-1] = max(pair for pair in pairs if pair[1] == 0 and pair[0] < frames)
    return np.array(found).T


def labels_of(rng, target_lengths, width, vocab, blanks):
    """Ids that are no blank, and garbage behind each example's last."""
    targets = np.resize(problems.GARBAGE_IDS, (len(target_lengths), width)).astype(np.int64)
    for row, length in zip(targets, target_lengths, strict=True):
        row[:length] = rng.choice(np.setdiff1d(np.arange(vocab), blanks), length)
    return targets


def due_frames(rng, frames, labels, topology):
    """A frame for each label, with a frame for a blank behind them."""
    return problems.random_frames(rng, max(frames - 1, 1), labels, "rnnt" if labels_stay(topology) else "monotonic")


def bounds_of(rng, logit_lengths, target_lengths, width, topology, margin=2):
    """As `problems.random_bounds`."""
    first = np.resize(problems.GARBAGE_IDS, (len(logit_lengths), width)).astype(np.int32)
    last = first[:, ::-1].copy()
    for b, (frames, labels) in enumerate(zip(logit_lengths, target_lengths, strict=True)):
        left, right = rng.integers(1, margin + 1, 2)
        emitted = due_frames(rng, frames, labels, topology)
        first[b, :frames], last[b, :frames] = problems.band(emitted, frames, left, right, "rnnt")
    return first, last


def nearest(steps, distance):
    """The index of the step that comes nearest."""
    return int(np.abs(np.asarray(steps) - distance).argmin())


def sharpen(rows, targets, blanks, topology, due, sharpness):
    """Favour the alignment that emits each label when it is due, and steps that lead to the next frame that matters."""
    frames, labels = rows.shape[0], len(targets)
    vocab, coming = rows.shape[2] - tail_of(topology), np.append(due, [frames, frames])
    for t, u in np.ndindex(frames, labels + 1):
        waits = u == labels or t < due[u]
        ahead = coming[u + 1 - waits] - t
        steps = np.array(steps_oracle.frames_of_steps(topology))
        if waits:
            steps = np.where(steps > 0, steps, 10**6)
        if topology.name == "tdt":
            rows[t, u, blanks[0] if waits else targets[u]] += sharpness
            rows[t, u, vocab + nearest(steps, ahead)] += sharpness
        else:
            rows[t, u, blanks[nearest(steps, ahead) - 1] if waits else targets[u]] += sharpness


def logits_problem(
    seed=0, topology=NEMO, *, batch=4, frames=7, labels=4, vocab=7, blank=-1, sharpness=0.0, lengths=None, **options
):
    """`problems.logits_problem` of `vocab` tokens; more options are its."""
    rng = np.random.default_rng(seed)
    lengths = lengths_of(rng, batch, frames, labels, topology) if lengths is None else lengths
    bounded, integer = options.pop("bounded", False), options.get("integer", np.int64)
    size = vocab + tail_of(topology)
    problem = problems.logits_problem(seed, vocab=size, blank=blank % vocab, lengths=lengths, **options)
    blanks, shape = blank_ids(blank, vocab, topology), problem.targets.shape
    targets = labels_of(rng, problem.target_lengths, shape[1], vocab, blanks)
    for b, (t, u) in enumerate(zip(*lengths, strict=True) if sharpness else ()):
        rows, due = problem.logits[b, :t, : u + 1].astype(np.float64), due_frames(rng, t, u, topology)
        sharpen(rows, targets[b, :u], blanks, topology, due, sharpness)
        problem.logits[b, :t, : u + 1] = rows.astype(problem.logits.dtype)
    bounds = bounds_of(rng, *problem.args[2:], problem.logits.shape[1], topology) if bounded else None
    return replace(problem, targets=targets.astype(integer), blank=blank, topology=topology, bounds=bounds)


def joint_problem(seed=0, topology=NEMO, *, batch=4, frames=7, labels=4, vocab=9, blank=-1, lengths=None, **options):
    """`problems.joint_problem` of `vocab` tokens; more options are its.

    A sharp one waits for its labels by steps of one frame, as its features do not say how far a label is.
    """
    rng, sharpness = np.random.default_rng(seed), options.get("sharpness", 0.0)
    bounded, kind = options.pop("bounded", False), options.pop("vocabulary", None)
    if lengths is None and options.get("hypotheses") is None:
        lengths = lengths_of(rng, batch, frames, labels, topology)
    if lengths is not None:
        batch = len(lengths[0])
    sizes = {"frames": frames, "labels": labels, "lengths": lengths, "vocab": vocab, "blank": blank % vocab}
    problem = problems.joint_problem(seed, batch=batch, **sizes, **options)
    blanks, tail, width = blank_ids(blank, vocab, topology), tail_of(topology), problem.weight.shape[1]
    weight, bias = 1.5 * rng.standard_normal((tail, width)) / np.sqrt(width), 0.5 * rng.standard_normal(tail)
    if sharpness:
        weight[:, :2] = 0
        problem.weight[blanks[1:], :2] = problem.weight[blanks[0], :2]
        bias += sharpness * (np.arange(tail) == nearest(topology.durations, 1))
    targets = labels_of(rng, problem.target_lengths, problem.targets.shape[1], vocab, blanks)
    needed = np.concatenate([np.resize(blanks, (len(targets), len(blanks))), targets], axis=1)
    given = needed, problem.target_lengths + len(blanks), vocab, blank
    ids, ids_lengths = problems.random_vocabulary(rng, *given, kind)
    dtype, lengths = problem.weight.dtype, problem.args[5:]
    return replace(
        problem,
        weight=np.concatenate([problem.weight, weight.astype(dtype)]),
        bias=None if problem.bias is None else np.concatenate([problem.bias, bias.astype(dtype)]),
        targets=targets.astype(options.get("integer", np.int64)),
        blank=blank,
        topology=topology,
        vocabulary=ids,
        vocabulary_lengths=ids_lengths,
        bounds=bounds_of(rng, *lengths, problem.encoder.shape[1], topology) if bounded else None,
    )


def poisoned(topology, frames, labels, dtype=np.float32):
    """(problem, the same with NaN in one cell of each example, whether alignments visit that cell): each cell once."""
    cells = [(t, u) for t in range(frames) for u in range(labels + 1)]
    lengths = np.full(len(cells), frames), np.full(len(cells), labels)
    problem = logits_problem(19, topology, lengths=lengths, dtype=dtype, blank=0)
    logits = problem.logits.copy()
    for b, cell in enumerate(cells):
        logits[b][cell] = np.nan
    visited = {arc[:2] for arcs in alignments(frames, labels, topology) for arc in arcs}
    return problem, replace(problem, logits=logits), np.array([cell in visited for cell in cells])


def shapes():
    """What both kinds of problem have in common; the blank is the last token or the one before it."""
    common = problems.shapes()
    del common["topology"], common["frames"], common["labels"]
    frames, labels = st.integers(4, 8), st.integers(0, 4)
    return common | {
        "topology": st.sampled_from(STEPS),
        "frames": frames,
        "labels": labels,
        "blank": st.sampled_from([-1, -2]),
    }


def logits_problems():
    """Hypothesis strategy."""
    return st.builds(logits_problem, vocab=st.integers(5, 9), spread=st.sampled_from([0.1, 1.5, 6.0]), **shapes())


def joint_problems():
    """Hypothesis strategy."""
    return st.builds(
        joint_problem,
        vocab=st.integers(5, 9),
        width=st.integers(2, 6),
        activation=st.sampled_from(["tanh", "relu", "identity"]),
        dropout=st.sampled_from(problems.DROPOUTS),
        use_bias=st.booleans(),
        vocabulary=st.sampled_from([None, "full", "lengths", "endings"]),
        **shapes(),
    )
