"""Stage 3's parts: the language model, lists of hypotheses, what is expected of them; and the masks of training."""

import itertools
import math

import numpy as np
import pytest

pytest.importorskip("rapidfuzz")
pytest.importorskip("nltk")

from studies.speech.batches import take_batch
from studies.speech.corpus import Utterances, load_corpus
from studies.speech.encoder import encoder_forward
from studies.speech.masking import mask
from studies.speech.network import initial_parameters
from studies.three_stage.bayes import risk_once
from studies.three_stage.checkpoint import State, load, save
from studies.three_stage.decoding import best_lists, ctc_greedy, error_rate, greedy
from studies.three_stage.language_model import LanguageModel, crossed_models
from studies.three_stage.risk import decode_lists, rescore, risk_step

UNITS = 8


def small_corpus():
    return load_corpus("generated", units=UNITS, utterances=12, held_out=5, bands=4)


def small_parameters(utterances, seed=0):
    rng = np.random.default_rng(seed)
    found = initial_parameters(
        rng, features=utterances.features[0].shape[1], vocab_size=UNITS + 1, channels=8, blocks=2, joint=8
    )
    return {name: (value + 0.3 * rng.standard_normal(value.shape)).astype(np.float32) for name, value in found.items()}


def test_probabilities_of_the_language_model_add_up():
    model = LanguageModel(3, [[1, 2, 1, 2], [2, 2, 1], [1]])
    for history in itertools.product("12", repeat=2):
        total = sum(2 ** model.label_score(label, history) for label in ("1", "2", "</s>", "<s>", "<UNK>"))
        assert total == pytest.approx(1, abs=0.02)


def test_bigrams_by_their_definition():
    """Witten and Bell: a history of n labels and k different ones after it leaves k / (n + k) to the lower order."""
    model = LanguageModel(2, [[1, 2], [1, 1]])
    unigrams = {"1": 3, "2": 1, "<s>": 2, "</s>": 2}

    def bigram(label, count, total, kinds):
        return (total * count / total + kinds * unigrams[label] / 8) / (total + kinds)

    wanted = bigram("1", 2, 2, 1) * bigram("2", 1, 3, 3) * bigram("</s>", 1, 1, 1)
    assert model.score([1, 2]) == pytest.approx(math.log(wanted))
    assert model.score((1, 2)) == model.score(np.array([1, 2], np.int32))


def test_crossed_models_have_not_read_what_they_score():
    sequences = [[1, 2, 3, 1], [4, 4, 4], [5, 6], [2, 2, 2]]
    models = crossed_models(2, sequences, 2)
    for n, sequence in enumerate(sequences):
        others = LanguageModel(2, [other for k, other in enumerate(sequences) if k % 2 != n % 2])
        assert models[n % 2].score(sequence) == pytest.approx(others.score(sequence))
        assert models[n % 2].score(sequence) < models[1 - n % 2].score(sequence)


def test_lists_are_sorted_and_distinct():
    train_set, _, _ = small_corpus()
    parameters = small_parameters(train_set)
    batch = take_batch(train_set, np.array([3, 5]))
    for found in best_lists(parameters, batch, 4):
        assert 2 <= len(found) <= 4 and len(set(found)) == len(found)
    models = crossed_models(2, train_set.targets, 3)
    lists = decode_lists(parameters, train_set, 4, models)
    assert lists[3].labels == best_lists(parameters, batch, 4)[0]
    assert lists[5].language.tolist() == [models[2].score(labels) for labels in lists[5].labels]
    assert greedy(parameters, train_set).keys() == set(range(12))


def test_rescoring_expects_what_training_lowers():
    train_set, _, _ = small_corpus()
    parameters = small_parameters(train_set)
    lists = decode_lists(parameters, train_set, 4, [LanguageModel(2, train_set.targets)])
    risk, best = rescore(parameters, train_set, lists, lm_scale=0.4, scale=0.7)
    batch = take_batch(train_set, np.arange(12))
    step = risk_step(parameters, batch, lists, lm_scale=0.4, scale=0.7, full_sum_weight=0.0)
    assert risk == pytest.approx(step.loss, rel=1e-5) and step.encoder_loss == 0
    assert all(tuple(best[n]) in lists[n].labels for n in range(12))
    moved = {name: value - np.float32(1e-3) * step.grads[name] for name, value in parameters.items()}
    assert rescore(moved, train_set, lists, lm_scale=0.4, scale=0.7)[0] < risk
    # A language model that counts for everything chooses alone.
    _, chosen = rescore(parameters, train_set, lists, lm_scale=1e6, scale=0.7)
    assert chosen == {n: list(found.labels[int(np.argmax(found.language))]) for n, found in enumerate(lists)}


def test_runs_of_the_ctc_layer_are_merged():
    train_set, _, _ = small_corpus()
    parameters = small_parameters(train_set)
    one = Utterances(*(column[:1] for column in train_set))
    batch = take_batch(one, np.array([0]))
    encoded, _ = encoder_forward(parameters, batch.frames, batch.frame_lengths, mode="none")
    wanted = [k for k, _ in itertools.groupby(encoded.ctc_logits[0].argmax(axis=1).tolist()) if k]
    assert ctc_greedy(parameters, one) == {0: wanted} and len(wanted) > 1


def test_errors_are_counted_by_true_labels():
    truth = Utterances([], [np.array([1, 2, 3]), np.array([4])], ["", ""])
    assert error_rate({0: [1, 3], 1: [4, 5]}, truth) == 0.5


def test_stage_3_is_kept_and_not_repeated(tmp_path):
    corpus = small_corpus()
    source = tmp_path / "source.npz"
    save(source, State(small_parameters(corpus[0]), None, None, {}))
    options = {
        "batch": 4,
        "beam": 3,
        "order": 2,
        "lm_scale": 0.3,
        "risk_scale": 1.0,
        "risk_steps": 6,
        "risk_rate": 1e-3,
        "risk_full_sum": 0.05,
    }
    path, losses = tmp_path / "stage.json", []
    result = risk_once(path, source, 0, corpus, options, losses.append)
    assert len(losses) == 6 and result["after"]["training_risk"] < result["before"]["training_risk"]
    assert 1 < result["hypotheses"] <= 3
    trained = load(source).parameters
    with np.load(path.with_suffix(".npz")) as arrays:
        assert any((arrays[name] != value).any() for name, value in trained.items())
    assert risk_once(path, source, 0, corpus, options, losses.append) == result and len(losses) == 6
    with pytest.raises(ValueError, match=r"stage\.json was made with .*, not .*'beam': 4"):
        risk_once(path, source, 0, corpus, options | {"beam": 4}, losses.append)


def test_masks_are_stretches_of_time_and_of_bands():
    frames = np.ones((3, 50, 20), np.float32)
    masked = mask(frames, np.array([50, 30, 1]), np.random.default_rng(1), bands=10)
    again = mask(frames, np.array([50, 30, 1]), np.random.default_rng(1), bands=10)
    np.testing.assert_array_equal(masked, again)
    assert (frames == 1).all() and set(np.unique(masked)) == {0, 1}
    by_band = masked.reshape(3, 50, 2, 10)
    np.testing.assert_array_equal(by_band[:, :, 0], by_band[:, :, 1])
    for utterance in by_band[:, :, 0]:
        # What is masked is the union of whole frames and of whole bands.
        times, bands = (utterance == 0).all(axis=1), (utterance[~(utterance == 0).all(axis=1)] == 0).all(axis=0)
        np.testing.assert_array_equal(utterance == 0, times[:, None] | bands)
    times_only = {"bands": 10, "frequency_masks": 0}
    short = [mask(frames, np.array([9] * 3), np.random.default_rng(k), **times_only, time_share=1) for k in range(9)]
    assert (np.stack(short)[:, :, 9:] == 1).all() and (np.stack(short)[:, :, :9] == 0).any()
    whole = (mask(frames, np.array([50] * 3), np.random.default_rng(k), **times_only) for k in range(50))
    shares = [(masked == 0).mean() for masked in whole]
    assert 0.05 < np.mean(shares) < 0.15
