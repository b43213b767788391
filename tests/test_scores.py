"""A loss over given scores of arcs: against enumeration and the oracle, scores of any sign, and what it refuses."""

from typing import NamedTuple

import numpy as np
import pytest

import lattice
from tests import compare, oracle
from tests.problems import DTYPES, TOPOLOGIES, logits_problem, name_of, random_bounds, random_lengths
from tests.signatures import signature
from tests.test_inputs import WRONG, changed, says
from tests.test_inputs_values import NeedsGradient
from tests.test_posteriors import scale_of


class Scores(NamedTuple):
    """The arguments of the door; NaN is padding, and so is the last column of the label scores."""

    blank_scores: np.ndarray  # (B, T, U+1)
    label_scores: np.ndarray  # (B, T, U+1)
    frame_lengths: np.ndarray  # (B,)
    target_lengths: np.ndarray  # (B,)


def scores_problem(
    seed=0, *, topology="rnnt", dtype=np.float32, batch=4, frames=7, labels=4, mean=0.0, spread=2.0, lengths=None
):
    rng = np.random.default_rng(seed)
    lengths = random_lengths(rng, batch, frames, labels, topology) if lengths is None else lengths
    T, U = (np.asarray(n, np.int64) for n in lengths)
    blank, label = np.full((2, len(T), T.max() + 2, U.max() + 2), np.nan, dtype)
    for b, (t, u) in enumerate(zip(T, U)):
        blank[b, :t, : u + 1] = mean + spread * rng.standard_normal((t, u + 1))
        label[b, :t, :u] = mean + spread * rng.standard_normal((t, u))
    return Scores(blank, label, T, U)


def batch_truth(
    blank_scores, label_scores, frame_lengths, target_lengths, *, topology="rnnt", bounds=None, grad_loss=None,
    delay_penalty=0.0, of_one=oracle.arc_posteriors, dtype=np.float64,
):  # fmt: skip
    """Losses and gradients of a batch by the oracle, in a dtype."""
    loss, gradients = np.zeros(len(frame_lengths), dtype), np.zeros((2, *blank_scores.shape), dtype)
    for b, (t, u) in enumerate(zip(frame_lengths, target_lengths, strict=True)):
        exists = oracle.cell_exists(t, u, oracle.row_of(bounds, b))
        blank = np.where(exists, blank_scores[b, :t, : u + 1].astype(dtype), -np.inf)
        label = np.full_like(blank, -np.inf)
        delay = dtype(delay_penalty) * ((t - 1) / 2 - np.arange(t, dtype=dtype))
        label[:, :u] = np.where(exists[:, :u], label_scores[b, :t, :u].astype(dtype) + delay[:, None], -np.inf)
        loss[b], *posteriors = of_one(blank.astype(dtype), label.astype(dtype), topology)
        upstream = dtype(1 if grad_loss is None else grad_loss[b])
        gradients[:, b, :t, : u + 1] = -upstream * np.array(posteriors)
    return loss, *gradients


def check(given, **options):
    """The door against the oracle; returns what it gave."""
    delay_penalty, topology = options.pop("delay_penalty", 0.0), options.get("topology", "rnnt")
    dtype = given.blank_scores.dtype
    truth, naive = oracle.truth_and_naive(batch_truth, dtype, *given, **options, delay_penalty=delay_penalty)
    topology = lattice.Topology(topology, delay_penalty=delay_penalty) if delay_penalty else topology
    ours = lattice.scores_loss_and_grad(*given, **options | {"topology": topology})
    assert ours[0].dtype == (np.float64 if dtype == np.float64 else np.float32)
    compare.assert_close(ours[0], truth[0], naive[0], per_example=True, what="loss")
    scale = scale_of(truth[0], dtype) * (1 if options.get("grad_loss") is None else np.abs(options["grad_loss"]))
    for name, found, true, other in zip(("grad_blank", "grad_label"), ours[1:], truth[1:], naive[1:]):
        assert found.dtype == dtype and found.shape == given.blank_scores.shape
        # The naive recursion is in the dtype of the scores; sums of ours are float64.
        compare.assert_close(
            found, true, np.where(np.isfinite(other), true, other), per_example=True, scale=scale, what=name
        )
        assert not found[true == 0].astype(np.float32).view(np.uint32).any(), name
    return ours


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("mean", [3.0, -3.0])
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_every_small_lattice_is_its_enumeration(topology, mean, dtype):
    lengths = np.array([(t, u) for t in range(1, 5) for u in range(5) if topology == "rnnt" or u <= t]).T
    problem = scores_problem(0, lengths=lengths, topology=topology, dtype=dtype, mean=mean)
    ours = check(problem, topology=topology)
    truth = batch_truth(*problem, topology=topology, of_one=oracle.scores_by_enumeration)
    for found, true in zip(ours, truth, strict=True):
        np.testing.assert_allclose(found, true, rtol=0, atol=200 * np.finfo(dtype).eps)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_finite_differences(topology):
    given = scores_problem(1, topology=topology, dtype=np.float64, lengths=([4], [2]), mean=1.0)
    _, *gradients = lattice.scores_loss_and_grad(*given, topology=topology)
    for name, gradient in zip(given._fields, gradients):
        array = np.nan_to_num(getattr(given, name))
        moved = oracle.finite_differences(
            lambda x, name=name: lattice.scores_loss_and_grad(*given._replace(**{name: x}), topology=topology)[0][0],
            array,
        )
        np.testing.assert_allclose(gradient, moved, atol=1e-8)


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("bounded", [False, True])
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_ragged_batches(topology, bounded, dtype):
    given = scores_problem(2, topology=topology, dtype=dtype, frames=9, labels=5)
    rng = np.random.default_rng(3)
    width = given.blank_scores.shape[1]
    bounds = random_bounds(rng, *given[2:], width, topology) if bounded else None
    whole = check(given, topology=topology, bounds=bounds)
    check(given, topology=topology, bounds=bounds, grad_loss=np.array([0.25, 0, -3, 2], np.float32))
    check(given, topology=topology, delay_penalty=0.3)
    check(given, topology=topology, delay_penalty=-2.0, bounds=bounds)
    for b in range(len(whole[0])):
        rows = slice(b, b + 1)
        own = None if bounds is None else (bounds[0][rows], bounds[1][rows])
        alone = lattice.scores_loss_and_grad(*(part[rows] for part in given), topology=topology, bounds=own)
        for found, other in zip(alone, whole, strict=True):
            np.testing.assert_array_equal(found[0], other[b])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize(
    ("mean", "spread"), [(1e4, 3.0), (-1e4, 3.0), (1e4, 0.0), (0.0, 1e4), (3e37, 0.0), (-3e37, 0.0)]
)
def test_large_scores_over_long_audio(mean, spread, topology, dtype):
    given = scores_problem(4, topology=topology, dtype=dtype, lengths=([1000], [30]), mean=mean, spread=spread)
    wide = Scores(*(part.astype(np.longdouble) for part in given[:2]), *given[2:])
    truth = batch_truth(*wide, topology=topology, dtype=np.longdouble)
    loss, *gradients = lattice.scores_loss_and_grad(*given, topology=topology)
    eps = np.finfo(np.float32).eps if dtype == np.float32 else 0
    with np.errstate(over="ignore"):  # to -inf and inf, as the loss
        np.testing.assert_allclose(loss, truth[0].astype(dtype), rtol=eps + 1e-12)
    if abs(mean) < 1e30:
        # alpha and beta are logarithms in float64: a posterior is off by an ulp of some 1e7 nats.
        for found, true in zip(gradients, truth[1:]):
            compare.assert_relative_l2(found, true, eps + 1e-8)


def test_scores_of_logits_are_the_loss_of_logits():
    problem = logits_problem(5, dtype=np.float64)
    scores = oracle.log_softmax(np.where(problem.real[..., None], problem.logits, np.nan))
    label = np.full(scores.shape[:3], np.nan)
    for b, labels in enumerate(problem.target_lengths):
        label[b, :, :labels] = scores[b, :, np.arange(labels), problem.targets[b, :labels]].T
    loss, *gradients = lattice.scores_loss_and_grad(scores[..., 0], label, *problem.args[2:])
    expected = lattice.transducer_posteriors(*problem.args)
    np.testing.assert_allclose(loss, expected.loss, rtol=1e-13)
    for gradient, posterior in zip(gradients, expected[1:]):
        np.testing.assert_allclose(-gradient, posterior, atol=1e-13)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_an_amount_that_every_alignment_pays_moves_the_loss_alone(topology):
    given = scores_problem(6, topology=topology, dtype=np.float64)
    labelled = given._replace(label_scores=given.label_scores + 700.0)
    loss, *gradients = lattice.scores_loss_and_grad(*given, topology=topology)
    moved, *others = lattice.scores_loss_and_grad(*labelled, topology=topology)
    np.testing.assert_allclose(moved, loss - 700.0 * given.target_lengths, rtol=1e-13)
    for gradient, other in zip(gradients, others):
        np.testing.assert_allclose(other, gradient, atol=1e-10)


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("name", ["blank_scores", "label_scores"])
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e200])
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_no_number_and_no_alignment(topology, value, name, dtype):
    """One example without an alignment, one with a value that no sum holds: neither touches the third."""
    given = scores_problem(7, topology=topology, dtype=dtype, lengths=([4, 4, 4], [2, 2, 2]))
    expected = lattice.scores_loss_and_grad(*given, topology=topology)
    given.label_scores[0, :, 0] = -np.inf
    given.blank_scores[2, 1, 1] = -np.inf  # one arc is closed, and others are open
    with np.errstate(over="ignore"):
        getattr(given, name)[1, 1, 1] = value
    loss, *gradients = lattice.scores_loss_and_grad(*given, topology=topology)
    assert loss[0] == np.inf and np.isnan(loss[1]) and np.isfinite(loss[2]) and loss[2] > expected[0][2]
    for gradient, other in zip(gradients, expected[1:], strict=True):
        assert not gradient[0].any()
        assert np.isnan(gradient[1][other[1] != 0].astype(float)).all()
        assert not gradient[:, 4:].any() and not gradient[:, :, 3:].any()
    assert not gradients[1][:, :, 2].any() and gradients[0][2, 1, 1] == 0


def test_nothing_is_subnormal():
    given = scores_problem(8, lengths=([3], [2]))
    given.blank_scores[0, 0, 0] = -80.0  # a posterior of about 1e-35
    assert (np.abs(lattice.scores_loss_and_grad(*given)[1]) < 1e-30).any()
    for gradient in lattice.scores_loss_and_grad(*given, grad_loss=np.array([1e-5], np.float32))[1:]:
        magnitude = np.abs(gradient[gradient != 0])
        assert (magnitude >= np.finfo(np.float32).tiny).all()


def test_an_empty_batch():
    empty, none = np.zeros((0, 3, 2), np.float32), np.zeros(0, np.int64)
    assert [array.shape for array in lattice.scores_loss_and_grad(empty, empty, none, none)] == [(0,), *[(0, 3, 2)] * 2]


GIVEN = scores_problem(9, lengths=([4, 2, 3], [2, 1, 0]))._asdict()


def refuse(changes, exception, *words):
    given = GIVEN | {name: change(GIVEN[name]) if callable(change) else change for name, change in changes.items()}
    with pytest.raises(exception, match=says(*words)):
        lattice.scores_loss_and_grad(**given)


def test_signature():
    """Names, order and defaults are the contract."""
    assert signature(lattice.scores_loss_and_grad) == (
        "blank_scores label_scores frame_lengths target_lengths * topology='rnnt' bounds=None grad_loss=None"
    )
    assert signature(lattice.transducer_posteriors) == signature(lattice.transducer_loss)
    assert signature(lattice.joint_transducer_posteriors) == signature(lattice.joint_transducer_loss)


@pytest.mark.parametrize("name", list(GIVEN))
@pytest.mark.parametrize("wrong", [lambda x: x.tolist(), None, "text"], ids=["list", "None", "str"])
def test_not_an_array(name, wrong):
    refuse({name: wrong}, TypeError, name)


def test_shapes_and_dtypes():
    for name in GIVEN:
        refuse({name: lambda x: x[None]}, ValueError, name)
        refuse({name: lambda x: x[0]}, WRONG, name)
        refuse({name: lambda x: x[:2]}, ValueError, name, 2, 3)
    refuse({"label_scores": lambda x: x[:, :, 1:]}, ValueError, "label_scores", (3, 6, 3), (3, 6, 4), "blank_scores")
    refuse({"label_scores": lambda x: x.astype(np.float64)}, TypeError, "label_scores is float64", "float32")
    for name in ("blank_scores", "label_scores"):
        refuse({name: lambda x: np.nan_to_num(x).astype(np.int64)}, TypeError, name, "int64")
    none = np.zeros((3, 6, 0), np.float32)
    refuse({"blank_scores": none, "label_scores": none}, ValueError, "blank_scores", (3, 6, 0), "at least 1")


def test_lengths_and_options():
    for value in (0, 7):
        refuse({"frame_lengths": lambda x, v=value: changed(x, 1, v)}, ValueError, "frame_lengths[1]", value, "1 to 6")
    for value in (-1, 4):
        refuse(
            {"target_lengths": lambda x, v=value: changed(x, 1, v)}, ValueError, "target_lengths[1]", value, "0 to 3"
        )
    refuse({"topology": "tdt"}, ValueError, "topology", "tdt")
    refuse({"topology": lattice.Topology(hat=True)}, ValueError, "topology.hat is True", "False")
    refuse({"topology": lattice.Topology("tdt", durations=(0, 1))}, ValueError, "topology.name", "tdt")
    refuse({"bounds": np.zeros((2, 3, 4), int)}, TypeError, "bounds")
    refuse({"grad_loss": np.ones(2)}, ValueError, "grad_loss", (2,), (3,))


def test_arrays_that_require_a_gradient_get_advice():
    for name in ("blank_scores", "label_scores"):
        refuse({name: NeedsGradient()}, ValueError, f"{name} requires a gradient", f"{name}.detach()")
