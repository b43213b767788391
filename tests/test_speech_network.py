"""The encoder and the predictor of the speech studies.

The tests are of gradients by finite differences, of independence of padding, and of decoding.
"""

import numpy as np
import pytest

from studies.speech.encoder import encoder_backward, encoder_forward
from studies.speech.layers import depthwise_forward
from studies.speech.network import initial_parameters
from studies.speech.predictor import (
    decoding_predictor,
    label_contexts,
    predictor_backward,
    predictor_forward,
    sum_by_id,
)

FEATURES, CHANNELS, JOINT, VOCAB_SIZE = 4, 3, 5, 6
LENGTHS = np.array([7, 4])
MODES = ("none", "inter", "self")


def small_parameters(mode, *, blocks=3, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    parameters = initial_parameters(
        rng,
        features=FEATURES,
        vocab_size=VOCAB_SIZE,
        channels=CHANNELS,
        blocks=blocks,
        width=3,
        joint=JOINT,
        embedding=3,
        mode=mode,
        dtype=dtype,
    )
    # Biases of zero and scales of one would hide errors.
    for name, value in parameters.items():
        if name.endswith(("bias", "scale", "feedback.weight")):
            value += rng.standard_normal(value.shape).astype(dtype)
    return parameters


def small_frames(dtype=np.float64):
    return np.random.default_rng(9).standard_normal((len(LENGTHS), LENGTHS.max(), FEATURES)).astype(dtype)


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


def check_encoder_gradient(mode, intermediate, *, with_ctc, with_intermediate):
    rng = np.random.default_rng(1)
    parameters, frames = small_parameters(mode), small_frames()
    encoded, saved = encoder_forward(parameters, frames, LENGTHS, mode=mode, intermediate=intermediate)
    upstream = rng.standard_normal(encoded.encoder.shape)
    upstream_ctc = rng.standard_normal(encoded.ctc_logits.shape) if with_ctc else None
    middle = encoded.intermediate_logits
    upstream_middle = tuple(rng.standard_normal(logits.shape) for logits in middle) if with_intermediate else None
    grads = encoder_backward(parameters, saved, upstream, upstream_ctc, upstream_middle)
    others = ("embedding", "predictor.", "output.")
    assert set(grads) == {name for name in parameters if not name.startswith(others)}

    def total():
        encoded, _ = encoder_forward(parameters, frames, LENGTHS, mode=mode, intermediate=intermediate)
        sums = [(encoded.encoder * upstream).sum()]
        if with_ctc:
            sums.append((encoded.ctc_logits * upstream_ctc).sum())
        if with_intermediate:
            sums += [(logits * grad).sum() for logits, grad in zip(encoded.intermediate_logits, upstream_middle)]
        return sum(sums)

    for name, grad in grads.items():
        wanted = numerical_gradient(total, parameters[name])
        if with_ctc or mode == "self" or not name.startswith("ctc"):
            assert np.abs(wanted).max() > 1e-3, name
        np.testing.assert_allclose(grad, wanted, rtol=1e-6, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("mode", MODES)
def test_encoder_gradient(mode):
    check_encoder_gradient(mode, None, with_ctc=True, with_intermediate=True)


@pytest.mark.parametrize("mode", ["inter", "self"])
def test_encoder_gradient_of_two_readings(mode):
    check_encoder_gradient(mode, (1, 3), with_ctc=True, with_intermediate=True)


@pytest.mark.parametrize("mode", MODES)
def test_encoder_gradient_without_ctc_loss(mode):
    check_encoder_gradient(mode, None, with_ctc=False, with_intermediate=False)


def test_a_reading_may_have_no_gradient():
    parameters, frames = small_parameters("inter"), small_frames()
    encoded, saved = encoder_forward(parameters, frames, LENGTHS, mode="inter", intermediate=(1, 2))
    upstream, middle = np.ones_like(encoded.encoder), np.random.default_rng(3).standard_normal(encoded.ctc_logits.shape)
    wanted = encoder_backward(parameters, saved, upstream, None, (np.zeros_like(middle), middle))
    grads = encoder_backward(parameters, saved, upstream, None, (None, middle))
    for name, grad in grads.items():
        np.testing.assert_allclose(grad, wanted[name], rtol=1e-12, atol=1e-12, err_msg=name)
    with pytest.raises(ValueError):
        encoder_backward(parameters, saved, upstream, None, (middle,))


@pytest.mark.parametrize("mode", MODES)
def test_encoder_of_a_batch_is_that_of_its_utterances(mode):
    parameters, frames = small_parameters(mode), small_frames()
    frames[1, LENGTHS[1] :] = np.nan
    batch, saved = encoder_forward(parameters, frames, LENGTHS, mode=mode)
    upstream = np.random.default_rng(2).standard_normal(batch.encoder.shape)
    totals = {}
    for b, T in enumerate(LENGTHS):
        single, single_saved = encoder_forward(parameters, frames[b : b + 1, :T], LENGTHS[b : b + 1], mode=mode)
        pairs = [(batch.encoder, single.encoder), (batch.ctc_logits, single.ctc_logits)]
        for whole, part in [*pairs, *zip(batch.intermediate_logits, single.intermediate_logits)]:
            np.testing.assert_allclose(whole[b, :T], part[0], rtol=1e-12, atol=1e-12)
        assert not batch.encoder[b, T:].any()
        for name, grad in encoder_backward(parameters, single_saved, upstream[b : b + 1, :T]).items():
            totals[name] = totals.get(name, 0) + grad
    for name, grad in encoder_backward(parameters, saved, upstream).items():
        np.testing.assert_allclose(grad, totals[name], rtol=1e-10, atol=1e-10, err_msg=name)


def test_readings_are_ctc_logits_after_their_block():
    parameters, frames = small_parameters("inter", blocks=4), small_frames()
    default, _ = encoder_forward(parameters, frames, LENGTHS, mode="inter")
    read, _ = encoder_forward(parameters, frames, LENGTHS, mode="inter", intermediate=(2, 4))
    plain, _ = encoder_forward(parameters, frames, LENGTHS, mode="none")
    np.testing.assert_array_equal(default.intermediate_logits[0], read.intermediate_logits[0])
    # After the last block the head reads the very same frames; reading alone changes nothing above.
    np.testing.assert_array_equal(read.intermediate_logits[1], read.ctc_logits)
    np.testing.assert_array_equal(read.ctc_logits, plain.ctc_logits)
    assert np.abs(read.intermediate_logits[0] - read.ctc_logits).max() > 0.1
    assert plain.intermediate_logits == ()


def test_probabilities_fed_back_change_what_lies_above():
    parameters, frames = small_parameters("self"), small_frames()
    fed, _ = encoder_forward(parameters, frames, LENGTHS, mode="self")
    parameters["feedback.weight"][:], parameters["feedback.bias"][:] = 0, 0
    without, _ = encoder_forward(parameters, frames, LENGTHS, mode="self")
    plain, _ = encoder_forward(parameters, frames, LENGTHS, mode="none")
    np.testing.assert_array_equal(without.encoder, plain.encoder)
    assert np.abs(fed.encoder - plain.encoder).max() > 0.1


def test_depthwise_convolution_by_its_definition():
    rng = np.random.default_rng(4)
    inputs, kernel = rng.standard_normal((2, 6, 3)), rng.standard_normal((5, 3))
    wanted = np.zeros_like(inputs)
    for b, t, c in np.ndindex(wanted.shape):
        wanted[b, t, c] = sum(inputs[b, t + k - 2, c] * kernel[k, c] for k in range(5) if 0 <= t + k - 2 < 6)
    np.testing.assert_allclose(depthwise_forward(inputs, kernel), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mode", MODES)
def test_float32_stays_float32(mode):
    parameters = small_parameters(mode, dtype=np.float32)
    encoded, saved = encoder_forward(parameters, small_frames(np.float32), LENGTHS, mode=mode)
    arrays = [encoded.encoder, encoded.ctc_logits, *encoded.intermediate_logits]
    grads = encoder_backward(parameters, saved, encoded.encoder, encoded.ctc_logits, encoded.intermediate_logits)
    contexts = label_contexts(np.array([[3, 5]]))
    predictor, predictor_saved = predictor_forward(parameters, contexts)
    grads |= predictor_backward(parameters, predictor_saved, predictor)
    assert {array.dtype for array in [*arrays, predictor, *grads.values(), *parameters.values()]} == {
        np.dtype(np.float32)
    }
    assert {*grads, "output.weight", "output.bias"} == set(parameters)


def test_modes_begin_with_the_same_parameters():
    sizes = {"features": FEATURES, "vocab_size": VOCAB_SIZE}
    plain, fed = (initial_parameters(np.random.default_rng(5), **sizes, mode=mode) for mode in ("none", "self"))
    assert set(fed) - set(plain) == {"feedback.weight", "feedback.bias"}
    for name, value in plain.items():
        np.testing.assert_array_equal(value, fed[name])


def test_predictor_gradient():
    parameters = small_parameters("none")
    contexts = label_contexts(np.array([[3, 3, 4], [3, 1, 0]]))
    upstream = np.random.default_rng(6).standard_normal((2, 4, JOINT))
    _, saved = predictor_forward(parameters, contexts)
    grads = predictor_backward(parameters, saved, upstream)
    assert set(grads) == {"embedding", "predictor.weight", "predictor.bias"}
    for name, grad in grads.items():
        wanted = numerical_gradient(
            lambda: (predictor_forward(parameters, contexts)[0] * upstream).sum(), parameters[name]
        )
        assert np.abs(wanted).max() > 1e-3, name
        np.testing.assert_allclose(grad, wanted, rtol=1e-6, atol=1e-7, err_msg=name)


def test_rows_are_summed_by_their_ids():
    rng = np.random.default_rng(7)
    ids, rows = rng.integers(50, size=300), rng.standard_normal((300, 4))
    wanted = np.zeros((60, 4))
    np.add.at(wanted, ids, rows)
    np.testing.assert_allclose(sum_by_id(ids, rows, 60), wanted, rtol=1e-12, atol=1e-12)


def test_decoding_sees_what_training_saw():
    parameters = small_parameters("none")
    targets = np.array([[5, 1, 1, 2], [3, 4, 2, 5]])
    wanted, _ = predictor_forward(parameters, label_contexts(targets))
    predict = decoding_predictor(parameters)
    predictor, state = predict(np.zeros(2, int), None)
    np.testing.assert_allclose(predictor, wanted[:, 0], rtol=1e-12)
    for u in range(targets.shape[1]):
        # The search re-indexes states as it likes.
        state = tuple(array[::-1] for array in state)
        predictor, state = predict(targets[::-1, u], state)
        predictor, state = predictor[::-1], tuple(array[::-1] for array in state)
        np.testing.assert_allclose(predictor, wanted[:, u + 1], rtol=1e-12)


def test_wrong_arguments_are_named():
    rng = np.random.default_rng(8)
    with pytest.raises(ValueError, match="width must be odd, not 4"):
        initial_parameters(rng, features=FEATURES, vocab_size=VOCAB_SIZE, width=4)
    with pytest.raises(ValueError, match=r"mode must be one of .* not 'both'"):
        initial_parameters(rng, features=FEATURES, vocab_size=VOCAB_SIZE, mode="both")
    with pytest.raises(ValueError, match=r"mode must be one of .* not 'both'"):
        encoder_forward(small_parameters("none"), small_frames(), LENGTHS, mode="both")
    for blocks in (0, 4):
        with pytest.raises(ValueError, match=f"intermediate holds {blocks}, outside 1..3"):
            encoder_forward(small_parameters("inter"), small_frames(), LENGTHS, mode="inter", intermediate=(blocks,))
