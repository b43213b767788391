"""The oracle of arcs that take several frames, against itself: enumeration, recursion, closed forms, differences."""

import numpy as np
import pytest

from tests import oracle, steps_oracle
from tests.steps_oracle import Steps, uniform_loss

NEMO = Steps("tdt", (0, 1, 2, 3, 4), 0.05)
CASES = [
    (NEMO, 6, 2, 4),
    (Steps("tdt", (1, 2)), 5, 2, 3),
    (Steps("tdt", (0, 1)), 1, 1, 4),
    (Steps("tdt", (0, 2)), 5, 1, 3),  # no alignment: blanks and labels take even numbers of frames
    (Steps("tdt", (0, 2), 0.1, 0.3), 6, 1, 3),
    (Steps("tdt", (0, 1, 2), 0.1), 4, 0, 3),
    (Steps("tdt", (0, 2, 3)), 6, 3, 3),
    (Steps("tdt", (1,)), 5, 3, 3),
    (Steps("tdt", (3, 12), 0.0, -0.2), 9, 1, 3),
    (Steps("tdt", (0, 1, 2), 0.05, 0.3), 4, 4, 4),
    (Steps("multiblank", (2, 4), 0.1), 6, 2, 5),
    (Steps("multiblank", (2,)), 1, 3, 4),
    (Steps("multiblank", (2, 3, 9), 0.0, 0.3), 5, 3, 6),
    (Steps("multiblank", (3,), 0.2), 4, 0, 4),
]
"""(topology, frames, labels, tokens)"""
PLACES = {"first": 0, "middle": 2, "last": -1}
of_cases = pytest.mark.parametrize(("topology", "frames", "labels", "vocab"), CASES)


def one_example(seed, topology, frames, labels, vocab, blank=None):
    """(logits, targets, blank) with the last token for a blank, or another that has room for the big ones below it."""
    rng = np.random.default_rng(seed)
    blank = vocab - 1 if blank is None else blank
    others = np.setdiff1d(np.arange(vocab), steps_oracle.blank_ids(blank, vocab, topology))
    logits = 2 * rng.standard_normal((frames, labels + 1, vocab + steps_oracle.tail_of(topology)))
    return logits, rng.choice(others, labels), blank


@of_cases
def test_alignments_are_connected(topology, frames, labels, vocab):
    found, steps = list(steps_oracle.alignments(frames, labels, topology)), steps_oracle.frames_of_steps(topology)
    assert len(found) == len(set(found))
    for arcs in found:
        t = u = 0
        for arc_t, arc_u, n, is_label in arcs:
            assert (arc_t, arc_u) == (t, u) and (is_label or steps[n] > 0)
            assert topology.name == "tdt" or is_label == (n == 0)
            t, u = t + steps[n], u + is_label
            assert t < frames or not is_label
        assert (t, u) == (frames, labels)


@of_cases
def test_recursion_is_enumeration(topology, frames, labels, vocab):
    logits, targets, blank = one_example(1, topology, frames, labels, vocab)
    scores = steps_oracle.arc_scores(logits, targets, blank=blank, topology=topology)
    expected = steps_oracle.by_enumeration(*scores, topology)
    found = steps_oracle.arc_posteriors(*scores, topology)
    for ours, other in zip(found, expected):
        np.testing.assert_allclose(ours, other, rtol=1e-13, atol=1e-15)
    loss, _ = steps_oracle.loss_and_grad(logits, targets, blank=blank, topology=topology)
    assert loss == found[0] and np.isfinite(loss) == (topology.durations != (0, 2) or frames % 2 == 0)
    score, emitted = steps_oracle.best_alignment(logits, targets, blank=blank, topology=topology)
    np.testing.assert_allclose(score, expected[3], rtol=1e-13)
    assert emitted == expected[4] and score <= -loss


@of_cases
def test_recursion_is_enumeration_within_bounds(topology, frames, labels, vocab):
    logits, targets, blank = one_example(2, topology, frames, labels, vocab)
    rng, finite = np.random.default_rng(3), 0
    for _ in range(20):
        first, last = rng.integers(-1, 2, frames), rng.integers(0, labels + 2, frames)
        last[-1] = max(last[-1], labels)
        scores = steps_oracle.arc_scores(logits, targets, blank=blank, topology=topology, bounds=(first, last))
        outside = [(t, u) for t, u in np.ndindex(frames, labels + 1) if not first[t] <= u <= last[t]]
        assert all(np.isneginf(score[t, u]).all() for score in scores for t, u in outside)
        loss, *_ = steps_oracle.arc_posteriors(*scores, topology)
        np.testing.assert_allclose(loss, steps_oracle.by_enumeration(*scores, topology)[0], rtol=1e-13)
        finite += np.isfinite(loss)
    assert finite or (topology.durations == (0, 2) and frames % 2)


@of_cases
@pytest.mark.parametrize("blank", PLACES.values(), ids=PLACES.keys())
def test_gradients_are_finite_differences(topology, frames, labels, vocab, blank):
    vocab += 1
    if topology.name == "multiblank" and blank >= 0:
        blank = min(blank + len(topology.durations), vocab - 1)  # below are the big ones
    logits, targets, blank = one_example(3, topology, frames, labels, vocab, blank)
    options = {"blank": blank, "topology": topology}
    loss, grad = steps_oracle.loss_and_grad(logits, targets, **options, grad_loss=-0.7)
    if not np.isfinite(loss):
        assert not grad.any()
        return
    expected = oracle.finite_differences(lambda x: steps_oracle.loss_and_grad(x, targets, **options)[0], logits)
    np.testing.assert_allclose(grad, -0.7 * expected, atol=1e-8)
    for head in np.split(grad, [vocab], axis=-1):
        np.testing.assert_allclose(head.sum(axis=-1), 0, atol=1e-14)


@of_cases
def test_arcs_that_cross_a_frame_boundary_sum_to_one(topology, frames, labels, vocab):
    logits, targets, blank = one_example(4, topology, frames, labels, vocab)
    scores = steps_oracle.arc_scores(logits, targets, blank=blank, topology=topology)
    loss, of_blank, of_label = steps_oracle.arc_posteriors(*scores, topology)
    taken = (of_blank + of_label).sum(axis=1)  # (T, D)
    for boundary in range(1, frames + 1):
        crossing = sum(
            taken[t, n]
            for t in range(boundary)
            for n, step in enumerate(steps_oracle.frames_of_steps(topology))
            if t + step >= boundary
        )
        np.testing.assert_allclose(crossing, float(np.isfinite(loss)), rtol=1e-12)


@of_cases
@pytest.mark.parametrize("scale", [0.0, 7.0])
def test_uniform_logits_are_the_closed_form(topology, frames, labels, vocab, scale):
    topology = topology._replace(delay_penalty=0.0)
    logits, targets, blank = one_example(5, topology, frames, labels, vocab)
    loss, _ = steps_oracle.loss_and_grad(np.full_like(logits, scale), targets, blank=blank, topology=topology)
    np.testing.assert_allclose(loss, uniform_loss(frames, labels, vocab, topology), rtol=1e-13)


def test_the_value_of_nemo():
    """Of its test with fixed logits: zeros, the last token a blank; 6 digits there."""
    topology = Steps("tdt", (0, 1, 2), 0.05)
    loss, grad = steps_oracle.loss_and_grad(np.zeros((3, 2, 7)), [0], blank=3, topology=topology)
    assert abs(loss - 4.155739) < 5e-7
    assert abs(uniform_loss(3, 1, 4, topology) - loss) < 1e-14
    # Entries of its gradient: the label's, the blank's, and that of the longest duration, to which 8 digits are given.
    np.testing.assert_allclose(grad[0, 0, [0, 3, 6]], [-0.64962804, 0.14962798, -0.09933221], atol=1e-6)
    np.testing.assert_allclose(grad[2, 1, [3, 5]], [-0.40166742, -0.35703772], atol=1e-6)


def test_fastemit_is_in_the_token_head_alone():
    logits, targets, blank = one_example(6, *CASES[0])
    options = {"blank": blank, "topology": CASES[0][0]}
    loss, grad = steps_oracle.loss_and_grad(logits, targets, **options)
    faster, other = steps_oracle.loss_and_grad(logits, targets, **options, fastemit_lambda=0.5)
    assert faster == loss
    np.testing.assert_array_equal(other[..., 4:], grad[..., 4:])
    _, _, of_label = steps_oracle.arc_posteriors(*steps_oracle.arc_scores(logits, targets, **options), CASES[0][0])
    label = of_label.sum(axis=-1)[..., None]
    extra = label * np.exp(steps_oracle.log_heads(logits, CASES[0][0])[0])
    for u, v in enumerate(targets):
        extra[:, u, v] -= label[:, u, 0]
    np.testing.assert_allclose(other[..., :4] - grad[..., :4], 0.5 * extra, atol=1e-15)


def test_one_duration_is_monotonic_with_a_blank_at_the_end():
    """A duration head of one entry is a constant, so labels and blanks take one frame each."""
    logits, targets, blank = one_example(7, Steps("tdt", (1,)), 6, 3, 5)
    bounds = np.where(np.arange(6) == 5, 3, 0), np.full(6, 3)
    loss, grad = steps_oracle.loss_and_grad(logits, targets, blank=blank, topology=Steps("tdt", (1,)))
    expected = oracle.loss_and_grad(logits[..., :5], targets, blank=blank, topology="monotonic", bounds=bounds)
    np.testing.assert_allclose(loss, expected[0], rtol=1e-14)
    np.testing.assert_allclose(grad[..., :5], expected[1], atol=1e-15)
    assert not grad[..., 5].any()


def test_big_blanks_that_are_never_taken_leave_rnnt():
    topology = Steps("multiblank", (2, 3), 0.0, 0.3)
    logits, targets, blank = one_example(8, topology, 5, 3, 6)
    logits[..., [3, 4]] = -np.inf
    loss, grad = steps_oracle.loss_and_grad(logits, targets, blank=blank, topology=topology)
    expected = oracle.loss_and_grad(logits, targets, blank=blank, topology=oracle.Rules("rnnt", False, 0.3))
    np.testing.assert_allclose(loss, expected[0], rtol=1e-14)
    np.testing.assert_allclose(grad, expected[1], atol=1e-15)


def test_minus_infinity_and_poison():
    logits, targets, blank = one_example(9, NEMO, 5, 2, 4)
    closed = logits.copy()
    closed[1, 1, 4:], closed[2, 0, :4], closed[0, 0, 5] = -np.inf, -np.inf, -np.inf
    loss, grad = steps_oracle.loss_and_grad(closed, targets, blank=blank, topology=NEMO)
    assert np.isfinite(loss) and np.isfinite(grad).all() and not grad[1, 1].any() and not grad[2, 0].any()
    for entry in range(9):
        for bad in (np.nan, np.inf):
            poisoned = logits.copy()
            poisoned[1, 1, entry] = bad
            loss, grad = steps_oracle.loss_and_grad(poisoned, targets, blank=blank, topology=NEMO)
            assert np.isnan(loss) and np.isnan(grad[1, 1]).all()
