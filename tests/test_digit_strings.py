"""The parts of the digit-string demo: gradients by finite differences, data, optimiser, decoding, picture."""

# ruff: noqa: E402 - the examples folder has to be on the path before its package is imported

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("rapidfuzz")

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "examples"))

from digit_strings.adam import Adam, warmup_cosine
from digit_strings.decode import greedy_decode, label_error_rate
from digit_strings.lattice_picture import lattice_picture_arrays
from digit_strings.network import (
    encoder_backward,
    encoder_forward,
    initial_parameters,
    label_contexts,
    predictor_backward,
    predictor_forward,
)
from digit_strings.strings import BLANK, SIDE, join_strings, split_scans, take_string


def numerical_gradient(function, array, step=1e-6):
    grad = np.empty_like(array)
    for index in np.ndindex(array.shape):
        kept = array[index]
        array[index] = kept + step
        above = function()
        array[index] = kept - step
        below = function()
        array[index] = kept
        grad[index] = (above - below) / (2 * step)
    return grad


def small_parameters(rng):
    parameters = initial_parameters(rng, channels=3, joint=4, embedding=3, dtype=np.float64)
    for name, value in parameters.items():
        if name.endswith("bias"):
            value += rng.standard_normal(value.shape)
    return parameters


def test_encoder_gradient():
    rng = np.random.default_rng(0)
    parameters = small_parameters(rng)
    frames, lengths = rng.standard_normal((2, 12, SIDE)), np.array([12, 7])
    upstream = rng.standard_normal((2, 12, 4))
    _, saved = encoder_forward(parameters, frames, lengths)
    grads = encoder_backward(parameters, saved, upstream)
    assert set(grads) == {name for name in parameters if name.startswith("encoder.")}
    for name, grad in grads.items():
        wanted = numerical_gradient(
            lambda: (encoder_forward(parameters, frames, lengths)[0] * upstream).sum(), parameters[name]
        )
        assert np.abs(wanted).max() > 1e-3, name
        np.testing.assert_allclose(grad, wanted, rtol=1e-6, atol=1e-7, err_msg=name)


def test_predictor_gradient():
    rng = np.random.default_rng(1)
    parameters = small_parameters(rng)
    contexts = label_contexts(np.array([[3, 3, 7], [3, 1, 0]]))
    upstream = rng.standard_normal((2, 4, 4))
    _, saved = predictor_forward(parameters, contexts)
    grads = predictor_backward(parameters, saved, upstream)
    assert set(grads) == {"embedding", "predictor.weight", "predictor.bias"}
    for name, grad in grads.items():
        wanted = numerical_gradient(
            lambda: (predictor_forward(parameters, contexts)[0] * upstream).sum(), parameters[name]
        )
        assert np.abs(wanted).max() > 1e-3, name
        np.testing.assert_allclose(grad, wanted, rtol=1e-6, atol=1e-7, err_msg=name)


def test_encoder_of_a_batch_is_that_of_its_strings():
    parameters = small_parameters(np.random.default_rng(2))
    strings = join_strings(split_scans(0)[0], 5, np.random.default_rng(2))
    frames = strings.frames.astype(np.float64)
    frames[np.arange(frames.shape[1]) >= strings.encoder_lengths[:, None]] = 1e3
    batch, _ = encoder_forward(parameters, frames, strings.encoder_lengths)
    for b, T in enumerate(strings.encoder_lengths):
        single, _ = encoder_forward(parameters, take_string(strings, b).frames, strings.encoder_lengths[b : b + 1])
        np.testing.assert_allclose(batch[b, :T], single[0], rtol=1e-12, atol=1e-12)
        assert not batch[b, T:].any()


def test_label_contexts_hold_the_last_two_labels():
    assert label_contexts(np.array([[5, 6, 7]])).tolist() == [[[0, 0], [0, 5], [5, 6], [6, 7]]]


def test_scans_are_split_without_overlap():
    train, held_out = split_scans(3)
    assert (len(train.rows), len(held_out.rows)) == (1500, 297)
    assert set(train.rows).isdisjoint(held_out.rows)
    assert sorted([*train.rows, *held_out.rows]) == list(range(1797))
    np.testing.assert_array_equal(split_scans(3)[0].rows, train.rows)
    assert set(split_scans(4)[0].rows) != set(train.rows)


def test_strings_show_their_scans_with_gaps_between():
    scans, _ = split_scans(0)
    images = {image.tobytes(): digit for image, digit in zip(scans.images, scans.digits)}
    strings = join_strings(scans, 200, np.random.default_rng(0))
    assert set(strings.target_lengths) == set(range(3, 11))
    assert strings.frames.min() == 0.0
    assert strings.frames.max() == 1.0
    gaps = set()
    for b in range(200):
        string = take_string(strings, b)
        assert string.frames.shape == (1, strings.encoder_lengths[b], SIDE)
        left = string.frames[0].copy()
        for start, label in zip(string.starts[0], string.targets[0]):
            scan = string.frames[0, start : start + SIDE].T
            assert images[np.ascontiguousarray(scan).tobytes()] == label - 1
            left[start : start + SIDE] = 0
        assert not left.any()
        assert not strings.targets[b, strings.target_lengths[b] :].any()
        assert not strings.frames[b, strings.encoder_lengths[b] :].any()
        edges = [0, *itertools.chain(*((s, s + SIDE) for s in string.starts[0])), strings.encoder_lengths[b]]
        gaps.update(end - begin for begin, end in zip(edges[::2], edges[1::2]))
    assert gaps == {0, 1, 2, 3, 4}


def test_jitter_moves_scans_by_one_row_at_most():
    scans, _ = split_scans(0)
    images = np.zeros((len(scans.images), SIDE + 4, SIDE), np.float32)
    images[:, 2:-2] = scans.images
    strings = join_strings(scans, 20, np.random.default_rng(0), jitter=True)
    seen = set()
    for b in range(20):
        for start in strings.starts[b, : strings.target_lengths[b]]:
            shown = strings.frames[b, start : start + SIDE].T
            shifts = [s for s in (-1, 0, 1) if (images[:, 2 - s : 2 - s + SIDE] == shown).all(axis=(1, 2)).any()]
            assert shifts
            seen.update(shifts)
    assert seen == {-1, 0, 1}


def test_adam_on_a_quadratic():
    parameters = {"x": np.array([5.0, -3.0]), "y": np.array([[2.0]])}
    adam = Adam(parameters)
    adam.step({"x": 2 * parameters["x"], "y": 200 * parameters["y"]}, 0.01)
    # The first step has the length of the learning rate, whatever the gradient's scale.
    np.testing.assert_allclose(parameters["x"], [4.99, -2.99])
    np.testing.assert_allclose(parameters["y"], [[1.99]])
    for step in range(2000):
        rate = warmup_cosine(step, 2000, 0.1)
        adam.step({"x": 2 * parameters["x"], "y": 200 * parameters["y"]}, rate)
    assert all(np.abs(value).max() < 1e-3 for value in parameters.values())


def test_learning_rate_rises_then_falls_to_zero():
    rates = [warmup_cosine(step, 100, 2.0) for step in range(100)]
    assert max(rates) == rates[10] == 2.0
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[0] == 0.2
    assert rates[-1] < 0.01


def hand_made_parameters():
    """Logits in which the encoder names a label and the predictor takes away the last two labels."""
    V = 11
    eye = np.eye(V)
    return {
        "embedding": -eye * (np.arange(V) != BLANK),
        "predictor.weight": np.concatenate((eye, eye)),
        "predictor.bias": np.zeros(V),
        "output.weight": eye,
        "output.bias": np.where(np.arange(V) == BLANK, 0.1, 0.0),
    }


def test_greedy_decoding_of_a_hand_made_case():
    parameters = hand_made_parameters()
    encoder = np.zeros((3, 4, 11))
    encoder[0, 0, 4] = 0.9  # emitted once: after it the predictor cancels it, so the blank wins
    encoder[0, 2, [5, 6, 7]] = 0.9, 0.8, 0.7  # without a limit: 5, 6, 7, then 5 again, for ever
    encoder[0, 3, 7] = 0.9  # past the end
    encoder[1, :, BLANK] = 0.9  # nothing at all
    encoder[2, 3, 2] = 0.9
    lengths = np.array([3, 4, 4])
    assert greedy_decode(parameters, encoder, lengths) == [[4, 5, 6], [], [2]]
    assert greedy_decode(parameters, encoder, lengths, max_labels_per_frame=4) == [[4, 5, 6, 7, 5], [], [2]]


def test_label_error_rate_counts_every_kind_of_error():
    targets, lengths = np.array([[1, 2, 3, 4], [5, 6, 0, 0]]), np.array([4, 2])
    assert label_error_rate([[1, 2, 3, 4], [5, 6]], targets, lengths) == 0.0
    # One substitution and one deletion in the first string, one insertion in the second.
    assert label_error_rate([[1, 9, 3], [5, 6, 6]], targets, lengths) == 3 / 6


@pytest.mark.parametrize("seed", range(3, 8))
def test_lattice_picture_agrees_with_all_paths(seed):
    rng = np.random.default_rng(seed)
    T, U, H, V = 4, 3, 5, 6
    encoder, predictor, weight, bias = (rng.standard_normal(shape) for shape in ((T, H), (U + 1, H), (V, H), V))
    targets = np.array([2, 2, 5])
    logits = np.tanh(encoder[:, None] + predictor) @ weight.T + bias
    scores = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    posterior, total, best, best_frames = np.zeros((T, U + 1)), 0.0, -np.inf, None
    for frames in itertools.combinations_with_replacement(range(T), U):
        u, score, visited = 0, 0.0, []
        for t in range(T):
            visited.append((t, u))
            while u < U and frames[u] == t:
                score, u = score + scores[t, u, targets[u]], u + 1
                visited.append((t, u))
            score += scores[t, u, BLANK]
        total += np.exp(score)
        for cell in visited:
            posterior[cell] += np.exp(score)
        if score > best:
            best, best_frames = score, frames
    picture = lattice_picture_arrays(encoder, predictor, weight, bias, targets, BLANK)
    np.testing.assert_allclose(picture.posterior, posterior / total, rtol=1e-10)
    assert tuple(picture.label_frames) == best_frames
