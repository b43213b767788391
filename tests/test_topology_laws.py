"""Every topology with every option of its scores, at the doors that sum over alignments.

The other side is enumeration, finite differences, closed forms, and sums in a wider dtype.
"""

from dataclasses import replace

import numpy as np
import pytest

import lattice
from tests import compare, oracle
from tests.problems import VARIANTS, consumes, joint_problem, logits_problem, name_of
from tests.test_certified import check_report, compare_with_dense, report
from tests.test_joint import check as check_joint
from tests.test_transducer import check

SMALL = {
    name: np.array([(t, u) for t in range(1, 5) for u in range(5) if u <= t or not consumes(name)]).T
    for name in ("rnnt", "monotonic", "constrained")
}
"""Lengths of all lattices with at most 4 frames and 4 labels."""
PLACES = [(3, 0), (4, 1), (5, -1)]
"""(vocab, blank): with 3 ids some labels follow on themselves."""
HATS = [topology for topology in VARIANTS if topology.hat and topology.delay_penalty >= 0]

of_variants = pytest.mark.parametrize("topology", VARIANTS, ids=name_of)
of_hats = pytest.mark.parametrize("topology", HATS, ids=name_of)


def small_logits(topology, vocab, blank):
    return logits_problem(
        vocab, lengths=SMALL[topology.name], vocab=vocab, blank=blank, topology=topology, dtype=np.float64
    )


def small_joint(topology, **options):
    options = {"lengths": SMALL[topology.name], "topology": topology, "width": 3, "dtype": np.float64, **options}
    return joint_problem(2, batch=SMALL[topology.name].shape[1], **options)


def enumerated(problem, rows_of, dtype):
    """The losses of a problem; `rows_of(b, t, u)` makes the logits of an example."""
    return np.array(
        [
            oracle.loss_by_enumeration(
                rows_of(b, t, u), problem.targets[b, :u], blank=problem.blank, topology=problem.topology, dtype=dtype
            )
            for b, (t, u) in enumerate(zip(*problem.args[-2:], strict=True))
        ]
    )


def slopes(losses, array, step=1e-5):
    """Central differences of losses (B,) over all entries [b, i, j, ..] at once for each [i, j, ..]."""
    found = np.zeros_like(array)
    for index in np.ndindex(array.shape[1:]):
        at = slice(None), *index
        shifted = array.copy()
        shifted[at] = array[at] + step
        above = losses(shifted)
        shifted[at] = array[at] - step
        found[at] = (above - losses(shifted)) / (2 * step)
    return np.where(np.isnan(array), 0, found)


@of_variants
@pytest.mark.parametrize(("vocab", "blank"), PLACES)
def test_every_small_lattice_is_its_enumeration(topology, vocab, blank):
    problem = small_logits(topology, vocab, blank)
    truth, naive = oracle.truth_and_naive(
        lambda dtype: enumerated(problem, lambda b, t, u: problem.logits[b, :t, : u + 1], dtype), np.float64
    )
    loss, _ = check(problem)
    compare.assert_close(loss, truth, naive, per_example=True, what="loss")


@of_variants
def test_every_small_gradient_is_finite_differences(topology):
    problem = small_logits(topology, 4, 1)
    _, grad = lattice.transducer_loss_and_grad(*problem.args, **problem.options)
    expected = slopes(lambda x: lattice.transducer_loss(x, *problem.args[1:], **problem.options), problem.logits)
    np.testing.assert_allclose(grad, expected, atol=2e-8)


@of_variants
def test_every_small_joint_is_its_enumeration(topology):
    problem = small_joint(topology, vocab=4, blank=1)
    hidden = np.tanh(problem.encoder[:, :, None] + problem.predictor[:, None])

    def losses(dtype):
        logits = hidden.astype(dtype) @ problem.weight.T.astype(dtype) + problem.bias
        return enumerated(problem, lambda b, t, u: logits[b, :t, : u + 1], dtype)

    truth, naive = oracle.truth_and_naive(losses, np.float64)
    loss, _ = check_joint(problem)
    compare.assert_close(loss, truth, naive, per_example=True, what="loss")


@of_variants
def test_every_small_joint_gradient_is_finite_differences(topology):
    problem = small_joint(topology, vocab=4, blank=-1)

    def losses(position):
        def of(x):
            args = [*problem.args[:position], x, *problem.args[position + 1 :]]
            return lattice.joint_transducer_loss(*args, **problem.options, posterior_floor=0)

        return of

    _, grads = lattice.joint_transducer_loss_and_grad(*problem.args, **problem.options, posterior_floor=0)
    for position, grad in enumerate(grads):
        if position < 2:
            expected = slopes(losses(position), problem.args[position])
        else:
            summed = losses(position)
            expected = oracle.finite_differences(lambda x, of=summed: of(x).sum(), problem.args[position])
        np.testing.assert_allclose(grad, expected, atol=2e-7, err_msg=grads._fields[position])


@of_variants
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_options_of_the_logits(topology, dtype):
    """Bounds, FastEmit, upstream gradients of any sign, sharp logits; repeats are in the last."""
    upstream = np.array([1, -2.5, 0, 0.3], dtype)
    options = {"topology": topology, "dtype": dtype}
    check(logits_problem(1, bounded=True, blank=2, **options), grad_loss=upstream, fastemit_lambda=0.7)
    check(logits_problem(2, frames=12, sharpness=8.0, blank=-1, **options), grad_loss=upstream)
    check(logits_problem(3, frames=9, labels=7, vocab=3, bounded=True, **options), fastemit_lambda=0.01)


@of_variants
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_options_of_the_joint(topology, dtype):
    """Bounds, vocabularies, shared encoders, FastEmit, upstream gradients; and what `vjp` and the report say."""
    upstream = np.array([1, -2.5, 0, 0.3, 7], dtype)
    options = {"topology": topology, "dtype": dtype, "fastemit_lambda": 0.7}
    extra = {"fastemit_lambda": options.pop("fastemit_lambda"), "grad_loss": upstream}
    problem = joint_problem(4, bounded=True, vocabulary="lengths", hypotheses=5, blank=3, **options)
    loss, grads = check_joint(problem, **extra)
    other, pull = lattice.joint_transducer_loss_vjp(
        *problem.args, **problem.options, posterior_floor=0, fastemit_lambda=0.7
    )
    compare.assert_same(other, loss, per_example=True)
    for ours, expected in zip(pull(upstream), grads, strict=True):
        compare.assert_same(ours, expected, scale=10)
    told = report(problem, posterior_floor=0)
    check_report(told, problem)
    np.testing.assert_array_equal(told.certified, told.cells)
    check_joint(joint_problem(5, use_bias=False, blank=-1, activation="relu", vocabulary="endings", **options))


@of_variants
def test_certified_is_dense(topology):
    """Sharp lattices, of which not all cells are computed; in vocabularies, within bounds, or neither."""
    options = {"batch": 4, "vocab": 20, "width": 16, "sharpness": 8.0, "topology": topology}
    lengths = [40, 24, 30, 9], [8, 5, 3, 0]
    for kind, bounded, blank in ((None, False, 0), ("lengths", True, 7)):
        problem = joint_problem(6, lengths=lengths, vocabulary=kind, bounded=bounded, blank=blank, **options)
        told = compare_with_dense(problem)
        check_report(told, problem)
        assert bounded or told.certified[0] < told.cells[0]
        assert told.skipped_posterior.any()
    extra = {"grad_loss": np.array([1, -2, 0.5, 3], np.float32), "fastemit_lambda": 0.3}
    check_joint(problem, posterior_floor=2.0**-24, **extra)


@of_variants
@pytest.mark.parametrize(("frames", "labels", "vocab"), [(1, 1, 3), (7, 5, 4), (40, 12, 3)])
def test_uniform_logits_are_the_closed_form(topology, frames, labels, vocab):
    logits = np.full((1, frames, labels + 1, vocab), 3.0)
    logits[..., 1] -= 3 * topology.hat  # where a blank and a label are as likely
    targets, lengths = np.full((1, labels), 2), (np.array([frames]), np.array([labels]))
    expected = np.array([oracle.uniform_loss(frames, labels, vocab, topology)])
    # What the loss is a difference of.
    scale = (frames + labels) * np.log(vocab) + abs(topology.delay_penalty) * labels * frames
    loss = lattice.transducer_loss(logits, targets, *lengths, blank=1, topology=topology)
    compare.assert_close(loss, expected, expected, scale=scale)
    # No hidden vector, so that the bias alone makes the logits; every cell counts, at any floor.
    vectors = np.zeros((1, frames, 2)), np.zeros((1, labels + 1, 2)), np.zeros((vocab, 2)), logits[0, 0, 0]
    for floor in (0, 2.0**-24):
        found = lattice.joint_transducer_loss(
            *vectors, targets, *lengths, blank=1, topology=topology, posterior_floor=floor
        )
        compare.assert_close(found, expected, expected, scale=scale, slack=1e-12 if floor else 0.0)


@pytest.mark.parametrize("name", ["rnnt", "monotonic", "constrained"])
@pytest.mark.parametrize("hat", [False, True])
def test_the_slope_over_the_delay_penalty_is_the_expected_delay(name, hat):
    """Also where examples are shorter than the arrays: an example's own frames count."""
    problem = logits_problem(8, lengths=([7, 3, 5], [3, 2, 0]), topology=name, dtype=np.float64)

    def losses(penalty):
        topology = lattice.Topology(name, hat=hat, delay_penalty=float(penalty[0]))
        return lattice.transducer_loss(*problem.args, topology=topology)

    expected = []
    for b, (t, u) in enumerate(zip(*problem.args[2:], strict=True)):
        rows = problem.logits[b, :t, : u + 1]
        _, *scores = oracle.arc_scores(rows, problem.targets[b, :u], topology=oracle.Rules(name, hat))
        _, _, gamma_label = oracle.arc_posteriors(*scores, name)
        expected.append(-(gamma_label * ((t - 1) / 2 - np.arange(t))[:, None]).sum())
    step = 1e-5
    slope = (losses([step]) - losses([-step])) / (2 * step)
    np.testing.assert_allclose(slope, expected, atol=1e-8)
    assert abs(slope[0]) > 1e-3 and slope[2] == 0
    # Of a certain alignment the score may be above 0, and so the loss below.
    assert (losses([-50.0])[:2] < 0).all()


@pytest.mark.parametrize("name", ["rnnt", "monotonic", "constrained"])
def test_hat_is_the_softmax_of_its_logarithms(name):
    """Log-probabilities are logits of which the softmax is themselves."""
    hat = lattice.Topology(name, hat=True, delay_penalty=0.1)
    problem = logits_problem(9, topology=hat, dtype=np.float64, blank=2)
    logits = oracle.log_distribution(problem.logits, 2, hat)
    plain = replace(problem, logits=logits, topology=replace(hat, hat=False))
    loss = lattice.transducer_loss(*problem.args, **problem.options)
    compare.assert_same(loss, lattice.transducer_loss(*plain.args, **plain.options), per_example=True)


@of_hats
def test_labels_of_a_row_may_be_shifted(topology):
    problem = logits_problem(10, topology=topology, dtype=np.float64, blank=3, vocab=6)
    shift = np.random.default_rng(0).normal(size=problem.logits.shape[:-1])[..., None] * (np.arange(6) != 3)
    loss, grad = lattice.transducer_loss_and_grad(*problem.args, **problem.options)
    shifted = replace(problem, logits=problem.logits + 5 * shift)
    for ours, expected in zip(
        lattice.transducer_loss_and_grad(*shifted.args, **shifted.options), (loss, grad), strict=True
    ):
        compare.assert_same(ours, expected, scale=loss.max())
    of_labels = np.delete(grad, 3, axis=-1)
    assert np.abs(of_labels).max() > 0.1
    compare.assert_same(of_labels.sum(axis=-1), np.zeros(grad.shape[:-1]), scale=loss.max())


def test_log_probabilities_of_hat_are_logits_of_rnnt():
    """What the joints of NeMo and wenet hand on; normalised twice, they would be another loss."""
    problem = logits_problem(12, dtype=np.float64, topology="rnnt")
    options = problem.options | {"topology": lattice.Topology(hat=True)}
    loss = lattice.transducer_loss(*problem.args, **options)
    log_probs = oracle.log_distribution(problem.logits, problem.blank, lattice.Topology(hat=True))
    np.testing.assert_allclose(
        lattice.transducer_loss(log_probs, *problem.args[1:], **problem.options), loss, rtol=1e-13
    )
    assert (lattice.transducer_loss(log_probs, *problem.args[1:], **options) > loss + 0.1).any()


@of_variants
def test_rows_are_at_most_kappa_times_their_posterior(topology):
    """docs/certified.md: the l1 norm of a row is at most 2 times the posterior of its cell, with HAT 3 times."""
    kappa, largest = 2 + topology.hat, 0.0
    for seed in range(20):
        problem = logits_problem(seed, topology=topology, dtype=np.float64, spread=6.0)
        _, grad = lattice.transducer_loss_and_grad(*problem.args, **problem.options)
        _, blank, label = lattice.transducer_posteriors(*problem.args, **problem.options)
        posterior, norm = (blank + label)[problem.real], np.abs(grad).sum(axis=-1)[problem.real]
        assert (norm <= kappa * posterior * (1 + 1e-9) + 2.0**-90).all()
        some = posterior > 1e-20
        largest = max(largest, (norm[some] / posterior[some]).max())
    assert largest > kappa - 0.1
