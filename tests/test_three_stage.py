"""The three-stage pipeline: the gradient of each stage's step, chunks, alignments against times, and resuming."""

import json

import numpy as np
import pytest

pytest.importorskip("rapidfuzz")

import lattice
from studies.speech.batches import Batch
from studies.speech.corpus import Utterances, load_corpus
from studies.speech.encoder import encoder_forward
from studies.speech.festvox import Phone
from studies.speech.network import initial_parameters
from studies.three_stage import stages
from studies.three_stage.align import align
from studies.three_stage.checkpoint import State, load
from studies.three_stage.chunks import Cut, chunk_batches, cuts_of, take_chunks
from studies.three_stage.memory import dense_joint
from studies.three_stage.objectives import ctc_step, full_sum_step, viterbi_step
from studies.three_stage.recipe import CTC, FULL_SUM, VITERBI, Row, Stage, band_width, learning_rate
from studies.three_stage.risk import Hypotheses, risk_step
from studies.three_stage.times import alignment_errors, centre_seconds

VOCAB = 6
TARGETS = [[1, 3, 3], [5, 2]]
FRAMES = [np.array([1, 2, 5], np.int32), np.array([0, 3], np.int32)]
SMOOTHED = {"label_smoothing": 0.2, "label_scale": 3.0, "focal": 1.5, "encoder_weight": 0.7}


def small_parameters(seed=1, blocks=2, width=3):
    rng = np.random.default_rng(seed)
    found = initial_parameters(
        rng,
        features=5,
        vocab_size=VOCAB,
        channels=6,
        blocks=blocks,
        width=width,
        joint=5,
        embedding=4,
        dtype=np.float64,
    )
    return {name: value + 0.2 * rng.standard_normal(value.shape) for name, value in found.items()}


def small_utterances():
    rng = np.random.default_rng(2)
    features = [rng.standard_normal((length, 5)) for length in (7, 5)]
    return Utterances(features, [np.array(target, np.int32) for target in TARGETS], ["a", "b"])


def small_batch():
    utterances = small_utterances()
    frames, targets = np.zeros((2, 7, 5)), np.zeros((2, 3), np.int32)
    for b, (rows, target) in enumerate(zip(utterances.features, utterances.targets)):
        frames[b, : len(rows)], targets[b, : len(target)] = rows, target
    return Batch(frames, np.array([7, 5]), targets, np.array([3, 2]), np.arange(2))


def small_chunks(chunk=4, hop=2):
    lengths = (7, 5)
    return take_chunks(
        small_utterances(), FRAMES, [cut for row in (0, 1) for cut in cuts_of(row, lengths[row], chunk, hop)]
    )


def small_lists():
    return [
        Hypotheses([(1, 3), (1, 3, 3), ()], np.array([-2.0, -4.0, -1.0]), np.array([1, 0, 3])),
        Hypotheses([(5, 4, 2, 1), (2,)], np.array([-3.0, -2.5]), np.array([2, 1])),
    ]


def check_gradient(step, untrained=()):
    """Directional derivatives of the whole objective, parameter by parameter."""
    parameters = small_parameters()
    grads = step(parameters).grads
    rng = np.random.default_rng(3)
    assert {name for name in parameters if not name.startswith(untrained)} == set(grads)
    for name, grad in grads.items():
        value, direction, found = parameters[name], rng.standard_normal(grad.shape), []
        for sign in (1, -1):
            parameters[name] = value + sign * 1e-6 * direction
            result = step(parameters)
            found.append(result.loss + result.encoder_loss)
        parameters[name] = value
        wanted = (found[0] - found[1]) / 2e-6
        assert np.vdot(grad, direction) == pytest.approx(wanted, rel=1e-5, abs=1e-8), name
        assert name.startswith(("ctc", *untrained)) or abs(wanted) > 1e-6, name


def test_gradient_of_the_ctc_model():
    check_gradient(
        lambda parameters: ctc_step(parameters, small_batch()),
        untrained=("encoder.", "embedding", "predictor.", "output."),
    )


@pytest.mark.parametrize("ctc_weight", [0.0, 0.4])
def test_gradient_of_full_sum_training(ctc_weight):
    check_gradient(lambda parameters: full_sum_step(parameters, small_batch(), ctc_weight=ctc_weight))
    parameters = small_parameters()
    alone = ctc_step(parameters, small_batch()).loss
    assert full_sum_step(parameters, small_batch(), ctc_weight=ctc_weight).encoder_loss == pytest.approx(
        ctc_weight * alone
    )


def test_full_sum_begins_in_a_band_around_the_alignment():
    """In a band of no width there is one alignment, and the loss is that of Viterbi training without smoothing."""
    parameters, batch = small_parameters(), small_batch()._replace(rows=np.array([1, 0]))
    batch = batch._replace(**{name: getattr(batch, name)[::-1] for name in batch._fields if name != "rows"})
    state = State(parameters, None, FRAMES, {"step": 0})
    one = take_chunks(small_utterances(), FRAMES, [Cut(1, 0, 5), Cut(0, 0, 7)])
    path = viterbi_step(parameters, one, **dict.fromkeys(SMOOTHED, 0.0)).loss
    whole = full_sum_step(parameters, batch, ctc_weight=0.0).loss
    stage = Stage(FULL_SUM, 8, 0.0, band=1)
    assert [band_width(stage, step) for step in range(8)] == [1, 1, 1, 2, 2, 3, 4, 8]
    losses = []
    for step in range(8):
        state.progress["step"] = step
        losses.append(stages.training_step(stage, state, batch, {}).loss)
    assert path > losses[0] > losses[3] > losses[7] == pytest.approx(whole, rel=1e-12)
    state.progress["step"] = 0
    narrow = stages.training_step(stage._replace(steps=10_000, band=1e-9), state, batch, {}).loss
    assert narrow == pytest.approx(path, rel=1e-12)
    grads = stages.training_step(stage, state, batch, {}).grads
    wide = full_sum_step(parameters, batch, ctc_weight=0.0).grads
    assert any(np.abs(grads[name] - wide[name]).max() > 1e-6 for name in grads)


def test_gradient_of_viterbi_training():
    check_gradient(lambda parameters: viterbi_step(parameters, small_chunks(), **SMOOTHED))


def test_gradient_of_minimum_bayes_risk():
    settings = {"lm_scale": 0.3, "scale": 0.8, "full_sum_weight": 0.05}
    check_gradient(lambda parameters: risk_step(parameters, small_batch(), small_lists(), **settings))


def test_risk_is_the_mean_of_edits_by_probability():
    parameters, batch, lists = small_parameters(), small_batch(), small_lists()
    result = risk_step(parameters, batch, lists, lm_scale=0.3, scale=0.8, full_sum_weight=1.0)
    wanted = 0.0
    for b, found in enumerate(lists):
        scores = []
        for labels, language in zip(found.labels, found.language):
            target = np.array([labels], np.int32).reshape(1, -1)
            one = Batch(
                batch.frames[b : b + 1], batch.frame_lengths[b : b + 1], target, np.array([len(labels)]), np.array([0])
            )
            loss = full_sum_step(parameters, one, ctc_weight=0.0).loss * max(1, len(labels))
            scores.append(0.8 * (0.3 * language - loss))
        weights = np.exp(scores) / np.exp(scores).sum()
        wanted += weights @ found.edits
    assert result.loss == pytest.approx(wanted / 5, rel=1e-9)
    assert result.encoder_loss == pytest.approx(full_sum_step(parameters, batch, ctc_weight=0.0).loss, rel=1e-9)


def test_dense_logits_give_the_same_step():
    parameters, batch = small_parameters(), small_batch()
    ours, dense = (full_sum_step(parameters, batch, ctc_weight=0.4, **given) for given in ({}, {"joint": dense_joint}))
    assert ours.loss == pytest.approx(dense.loss, rel=1e-12)
    for name, grad in ours.grads.items():
        np.testing.assert_allclose(grad, dense.grads[name], rtol=1e-6, atol=1e-7, err_msg=name)


def test_cuts_leave_no_frame_out():
    assert cuts_of(3, 10, 4, 2) == [Cut(3, 0, 4), Cut(3, 2, 6), Cut(3, 4, 8), Cut(3, 6, 10)]
    assert cuts_of(0, 9, 4, 4) == [Cut(0, 0, 4), Cut(0, 4, 8), Cut(0, 8, 9)]
    assert cuts_of(0, 4, 4, 2) == cuts_of(0, 4, 9, 2) == [Cut(0, 0, 4)]
    assert cuts_of(0, 5, 4, 2) == [Cut(0, 0, 4), Cut(0, 2, 5)]


def test_a_chunk_has_its_labels_and_what_came_before():
    chunks = take_chunks(small_utterances(), FRAMES, [Cut(0, 2, 6), Cut(0, 3, 5), Cut(1, 0, 4)])
    np.testing.assert_array_equal(chunks.frames[0], small_utterances().features[0][2:6])
    assert chunks.frame_lengths.tolist() == [4, 2, 4] and chunks.target_lengths.tolist() == [2, 0, 2]
    assert chunks.targets.tolist() == [[3, 3], [0, 0], [5, 2]]
    assert chunks.label_frames.tolist() == [[0, 3], [-1, -1], [0, 3]]
    assert chunks.contexts[0].tolist() == [[0, 1], [1, 3], [3, 3]]
    assert chunks.contexts[1, 0].tolist() == [1, 3]
    assert chunks.contexts[2].tolist() == [[0, 0], [0, 5], [5, 2]]


def test_chunks_without_overlap_add_up_to_the_whole():
    """An encoder of windows of one frame has no context, so cutting changes nothing."""
    parameters = small_parameters(width=1)
    whole, parts = small_chunks(chunk=9, hop=9), small_chunks(chunk=3, hop=3)
    assert (len(whole.frames), len(parts.frames)) == (2, 5)
    results = [viterbi_step(parameters, chunks, **SMOOTHED) for chunks in (whole, parts)]
    assert results[0].loss == pytest.approx(results[1].loss, rel=1e-12)
    assert results[0].encoder_loss == pytest.approx(results[1].encoder_loss, rel=1e-12)
    for name, grad in results[0].grads.items():
        np.testing.assert_allclose(grad, results[1].grads[name], rtol=1e-9, atol=1e-12, err_msg=name)


def test_batches_hold_every_chunk_once():
    rng = np.random.default_rng(0)
    lengths = rng.integers(5, 40, 30)
    features = [np.full((length, 2), row, np.float32) for row, length in enumerate(lengths)]
    for row, frames in enumerate(features):
        frames[:, 1] = np.arange(lengths[row])
    utterances = Utterances(features, [np.array([1], np.int32)] * 30, ["x"] * 30)
    found, sizes = [], []
    for chunks in chunk_batches(utterances, [np.array([2])] * 30, chunk=10, hop=5, frames=80, rng=rng):
        sizes.append(len(chunks.frames))
        for frames, length in zip(chunks.frames, chunks.frame_lengths):
            found.append((int(frames[0, 0]), int(frames[0, 1]), int(frames[length - 1, 1]) + 1))
    wanted = [tuple(cut) for row, length in enumerate(lengths) for cut in cuts_of(row, length, 10, 5)]
    assert sorted(found) == sorted(wanted) and max(sizes) == 8


def test_viterbi_training_follows_its_alignment():
    """Without smoothing the loss is minus the log-probability of one alignment: that of the best is the lowest."""
    parameters, plain = (
        small_parameters(),
        {"label_smoothing": 0.0, "label_scale": 0.0, "focal": 0.0, "encoder_weight": 0.0},
    )
    utterances = small_utterances()
    best = align(parameters, utterances, "transducer")
    whole = [Cut(0, 0, 7), Cut(1, 0, 5)]
    losses = [
        viterbi_step(parameters, take_chunks(utterances, frames, whole), **plain).loss for frames in (best, FRAMES)
    ]
    full = full_sum_step(parameters, small_batch(), ctc_weight=0.0).loss
    assert full < losses[0] <= losses[1]
    assert [len(frames) for frames in best] == [3, 2]


def test_ctc_alignments_are_peaky():
    """Sharp logits that repeat a label: its last frame counts."""
    parameters, utterances = small_parameters(), small_utterances()
    frames = align(parameters, utterances, "CTC")
    batch = small_batch()
    encoded, _ = encoder_forward(parameters, batch.frames, batch.frame_lengths, mode="none")
    wanted, _ = lattice.ctc_alignment(
        encoded.ctc_logits, batch.targets, batch.frame_lengths, batch.target_lengths, keep="last"
    )
    assert [row.tolist() for row in frames] == [wanted[0].tolist(), wanted[1, :2].tolist()]
    impossible = Utterances(utterances.features, [np.ones(4, np.int32), np.ones(3, np.int32)], ["aaaa", "bbb"])
    with pytest.raises(ValueError, match="utterance 0 has no alignment: 'aaaa'"):
        align(parameters, impossible._replace(features=[utterances.features[1]] * 2), "CTC")


def test_alignments_are_held_against_times():
    assert centre_seconds(np.array([0, 2]), 6) == pytest.approx([0.0375, 0.1575])
    phones = [[Phone("a", 0.0, 0.05), Phone("b", 0.05, 0.10)], [Phone("c", 0.0, 0.03)]]
    # Frames of 10 ms have their middle at 12.5, 22.5, ... ms.
    errors = alignment_errors([np.array([2, 7]), np.array([4])], phones, 1)
    assert errors["end"] == pytest.approx(
        {"median_ms": 17.5, "mean_ms": 57.5 / 3, "offset_ms": -17.5, "median_without_offset_ms": 0.0}
    )
    assert errors["centre"] == pytest.approx(
        {"median_ms": 7.5, "mean_ms": 17.5, "offset_ms": 7.5, "median_without_offset_ms": 0.0}
    )
    assert errors["inside"] == pytest.approx(2 / 3)
    errors = alignment_errors([np.array([5, 10]), np.array([2])], phones, 1)
    assert errors["inside"] == 0 and errors["inside_without_offset"] == pytest.approx(2 / 3)


def test_masks_differ_from_step_to_step():
    batch = small_batch()._replace(frames=np.ones((2, 40, 40)), frame_lengths=np.array([40, 40]))
    state = State({}, None, None, {"stage": 0, "step": 0})
    assert stages.masked(batch, 0, state, {"mask": False}) is batch
    first, same = (stages.masked(batch, 0, state, {"mask": True}).frames for _ in range(2))
    state.progress["step"] = 1
    other = stages.masked(batch, 0, state, {"mask": True}).frames
    np.testing.assert_array_equal(first, same)
    assert (first == 0).any() and (first != other).any()


def test_the_learning_rate_rises_and_falls():
    stage = Stage(CTC, 50, 2.0, 0.5, warmup=10)
    rates = [learning_rate(stage, step) for step in range(50)]
    assert rates[0] == pytest.approx(0.2) and rates[9] == rates[10] == 2.0 and rates[30] == pytest.approx(1.25)
    assert 0.5 < rates[-1] < 0.51 and rates[10:] == sorted(rates[10:], reverse=True)
    assert learning_rate(Stage(CTC, 4, 2.0), 3) == 2.0


OPTIONS = {
    "channels": 8,
    "blocks": 2,
    "joint": 8,
    "batch": 4,
    "mask": True,
    "chunk": 10,
    "label_smoothing": 0.1,
    "label_scale": 1.0,
    "focal": 0.0,
    "encoder_weight": 0.5,
}
ROW = Row(
    "x",
    (
        Stage(CTC, 3, 1e-3, 5e-4),
        Stage(VITERBI, 5, 1e-3, align="CTC"),
        Stage(VITERBI, 2, 1e-3, align="transducer"),
        Stage(FULL_SUM, 4, 1e-3, ctc_weight=0.5, band=2),
    ),
)


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("after", [1, 3, 5, 9, 12])
def test_an_interrupted_run_ends_with_the_same_parameters(tmp_path, after):
    corpus = load_corpus("generated", units=20, utterances=20, held_out=4)
    through, broken = tmp_path / "through.json", tmp_path / "broken.json"
    whole = stages.run_once(through, ROW, 0, corpus, OPTIONS, lambda loss: None)
    losses = []

    def stop(loss):
        losses.append(loss)
        if len(losses) == after:
            raise Interrupted

    with pytest.raises(Interrupted):
        stages.run_once(broken, ROW, 0, corpus, OPTIONS, stop)
    assert not broken.exists()
    resumed = stages.run_once(broken, ROW, 0, corpus, OPTIONS, lambda loss: None)
    for k in range(4):
        wanted, found = (load(stages.parameters_path(path, k)).parameters for path in (through, broken))
        for name, value in wanted.items():
            np.testing.assert_array_equal(found[name], value, err_msg=f"{name} after stage {k}")
    strip = [[{**point, "seconds": 0} for point in run["curve"]] for run in (whole, resumed)]
    assert strip[0] == strip[1] and [stage["steps"] for stage in resumed["stages"]] == [3, 5, 2, 4]
    assert [stage["align_seconds"] > 0 for stage in resumed["stages"]] == [False, True, True, False]
    seconds = [point["seconds"] for point in resumed["curve"]]
    assert seconds == sorted(seconds) and resumed["seconds"] == seconds[-1]
    assert resumed["seconds"] == pytest.approx(sum(stage["seconds"] for stage in resumed["stages"]))
    assert stages.run_once(broken, ROW, 0, corpus, OPTIONS, stop) == json.loads(broken.read_text())
    with pytest.raises(ValueError, match=r"broken\.json was made with .*'batch': 4.*, not .*'batch': 5"):
        stages.run_once(broken, ROW, 0, corpus, OPTIONS | {"batch": 5}, stop)
