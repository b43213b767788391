"""What the speech studies train on: features against slow direct ones, units, generated corpora, the cache, batches."""

import cmath
import itertools
import math

import numpy as np
import pytest

from studies.speech.batches import batches
from studies.speech.corpus import Utterances, alignable, alignable_rows, load_corpus, record_phones
from studies.speech.features import FLOOR, log_mel, mean_and_deviation, stack_frames
from studies.speech.units import SymbolUnits, train_units
from tests.debs import write_deb
from tests.test_speech_packages import wave_bytes


def direct_log_mel(samples, sampling_rate, bands, t):
    """Frame t by the definitions: a Hann window, the discrete Fourier transform, triangles on the mel scale."""
    size, hop = round(0.025 * sampling_rate), round(0.010 * sampling_rate)
    fft_size = 2 ** math.ceil(math.log2(size))
    piece = [samples[t * hop + n] / 32768 * math.sin(math.pi * n / (size - 1)) ** 2 for n in range(size)]
    highest = 2595 * math.log10(1 + sampling_rate / 2 / 700)
    corners = [700 * (10 ** (k * highest / (bands + 1) / 2595) - 1) for k in range(bands + 2)]
    energies = [0.0] * bands
    for k in range(fft_size // 2 + 1):
        power = abs(sum(x * cmath.exp(-2j * math.pi * k * n / fft_size) for n, x in enumerate(piece))) ** 2
        place = math.log10(1 + k * sampling_rate / fft_size / 700)
        for band in range(bands):
            left, middle, right = (math.log10(1 + corner / 700) for corner in corners[band : band + 3])
            height = (place - left) / (middle - left) if place < middle else (right - place) / (right - middle)
            energies[band] += max(0.0, height) * power
    return [math.log(energy + FLOOR) for energy in energies]


@pytest.mark.parametrize("sampling_rate, bands", [(8_000, 40), (16_000, 40), (22_050, 13)])
def test_features_by_their_definition(sampling_rate, bands):
    rng = np.random.default_rng(0)
    seconds = np.arange(round(0.05 * sampling_rate)) / sampling_rate
    samples = (8000 * np.sin(2 * np.pi * 440 * seconds) + 300 * rng.standard_normal(len(seconds))).astype(np.int16)
    features = log_mel(samples, sampling_rate, bands=bands)
    assert (features.shape, features.dtype) == ((3, bands), np.float32)
    np.testing.assert_allclose(features[2], direct_log_mel(samples, sampling_rate, bands, 2), rtol=1e-4, atol=1e-4)


def test_frames_are_whole_windows():
    lengths = [len(log_mel(np.ones(size, np.int16), 16_000)) for size in (0, 399, 400, 559, 560, 16_000)]
    assert lengths == [1, 1, 1, 1, 2, 98]
    np.testing.assert_allclose(log_mel(np.zeros(400, np.int16), 16_000), np.log(FLOOR), rtol=1e-6)


def test_mean_and_deviation_are_those_of_all_frames():
    rng = np.random.default_rng(1)
    features = [(3 + rng.standard_normal((count, 4)) * [1, 2, 3, 4]).astype(np.float16) for count in (5, 1, 30)]
    mean, deviation = mean_and_deviation(features)
    everything = np.concatenate(features).astype(np.float64)
    np.testing.assert_allclose(mean, everything.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(deviation, everything.std(axis=0), rtol=1e-6)
    assert mean.dtype == deviation.dtype == np.float32


def test_frames_are_stacked_in_their_order():
    frames = np.arange(10).reshape(5, 2)
    assert stack_frames(frames, 3).tolist() == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 0, 0]]
    assert stack_frames(frames, 5).tolist() == [list(range(10))]
    assert stack_frames(frames, 1).tolist() == frames.tolist()


def test_characters_are_units():
    units = train_units("characters", ["a dog's", "dab"])
    assert units.vocab_size == 1 + len(" 'abdgos")
    assert units.encode("dab").tolist() == [5, 3, 4]
    assert units.decode([0, 5, 0, 3, 4, 0]) == "dab"
    assert units.decode(units.encode("a dog's")) == "a dog's"
    with pytest.raises(ValueError, match="no unit for 'z' in 'daz'"):
        units.encode("daz")
    with pytest.raises(ValueError, match="not 'words'"):
        train_units("words", ["a"])


def test_words_are_units():
    units = SymbolUnits(["no", "yes"], separator=" ")
    assert units.encode("yes no yes").tolist() == [2, 1, 2]
    assert units.decode(np.array([2, 0, 1])) == "yes no"


def test_pieces_are_units():
    pytest.importorskip("sentencepiece")
    texts = ["the cat sat on the mat", "the dog sat on the log", "a cat and a dog"]
    units, again = train_units(25, texts), train_units(25, texts)
    assert units.vocab_size == units.processor.get_piece_size() == 26
    for text in texts:
        ids = units.encode(text)
        assert ids.dtype == np.int32
        assert 1 <= ids.min() <= ids.max() <= 25
        assert len(ids) < len(text)
        assert units.decode([0, *ids, 0]) == text
        np.testing.assert_array_equal(ids, again.encode(text))
    with pytest.raises(ValueError, match="no unit for a character in 'the fox'"):
        units.encode("the fox")


def small_corpus(**settings):
    return load_corpus("generated", **{"units": 20, "utterances": 60, "held_out": 15, "bands": 5, **settings})


def test_generated_corpora_depend_on_the_seed_alone():
    (train, held_out, units), (again, _, _), (other, _, _) = small_corpus(), small_corpus(), small_corpus(seed=1)
    assert (len(train.texts), len(held_out.texts), units.vocab_size) == (60, 15, 21)
    assert train.texts == again.texts
    assert set(train.texts).isdisjoint(other.texts + held_out.texts)
    for frames, same in zip(train.features, again.features):
        np.testing.assert_array_equal(frames, same)
    for part in (train, held_out):
        for frames, target, text in zip(*part):
            assert (frames.shape[1], frames.dtype, target.dtype) == (20, np.float32, np.int32)
            assert units.decode(target) == text
            assert 3 <= len(target) <= 12
            assert 2 * len(target) <= len(frames) <= 3.5 * len(target) + 1
    # The training part has mean 0 and variance 1, but for the zeros that fill up the last frame.
    frames = np.concatenate([frames[:-1] for frames in train.features]).reshape(-1, 5)
    np.testing.assert_allclose(frames.mean(axis=0), 0, atol=0.1)
    np.testing.assert_allclose(frames.std(axis=0), 1, atol=0.1)


def test_a_unit_sounds_alike_wherever_it_is():
    train, held_out, _ = small_corpus(stack=1, units=2, utterances=200)
    starts = {id: [] for id in (1, 2)}
    for frames, target, _ in zip(*train):
        starts[target[0]].append(frames[0])
    first, second = (np.mean(starts[id], axis=0) for id in (1, 2))
    for frames, target, _ in zip(*held_out):
        near, far = (first, second) if target[0] == 1 else (second, first)
        assert np.linalg.norm(frames[0] - near) < np.linalg.norm(frames[0] - far)


def test_utterances_with_too_many_labels_cannot_be_aligned():
    targets = [np.array(labels, np.int32) for labels in ([1, 2, 3], [1, 2, 2], [1, 2], [2, 2], [])]
    utterances = Utterances(
        [np.zeros((3, 2), np.float32)] * 3 + [np.zeros((2, 2), np.float32)] * 2, targets, list("abcde")
    )
    assert alignable_rows(utterances) == [0, 2, 4]
    assert alignable(utterances).texts == ["a", "c", "e"]
    assert [target.tolist() for target in alignable(utterances).targets] == [[1, 2, 3], [1, 2], []]


def test_a_corpus_of_sounds_is_read_once(tmp_path):
    rng = np.random.default_rng(2)
    texts = ["\u0430\u0431 \u0430", "\u0431\u0431 \u0430\u0430", "\u0431\u0430", "\u0430\u0431\u0430"]
    files = {f"./wav/ru_{k}.wav": wave_bytes(rng.integers(-9000, 9000, 4000 + 500 * k)) for k in range(4)}
    files["./etc/txt.done.data"] = "".join(f'( ru_{k} "{text}" )\n' for k, text in enumerate(texts)).encode()
    deb = write_deb(tmp_path / "festvox-ru_1_all.deb", files)
    settings = {"data": tmp_path, "cache": tmp_path / "cache", "units": "characters", "utterances": 2, "bands": 8}
    train, held_out, units = load_corpus("festvox", **settings, held_out=1)
    assert (train.texts, held_out.texts, units.vocab_size) == (texts[:2], texts[3:], 4)
    assert [len(frames) for frames in train.features] == [6, 7]
    assert train.features[0].shape[1] == 32
    deb.unlink()
    again, _, _ = load_corpus("festvox", **settings, held_out=1)
    for frames, same in zip(train.features, again.features):
        np.testing.assert_array_equal(frames, same)
    with pytest.raises(ValueError, match="festvox has 4 utterances, fewer than 2 and 3 held out"):
        load_corpus("festvox", **settings, held_out=3)


def test_phones_are_units(tmp_path):
    rng = np.random.default_rng(3)
    files = {f"./wav/ru_{k}.wav": wave_bytes(rng.integers(-9000, 9000, 4000)) for k in range(3)}
    files["./etc/txt.done.data"] = b'( ru_0 "a" )\n( ru_1 "b" )\n( ru_2 "c" )\n'
    for k, phones in enumerate(("pau b ay pau", "ay s pau s", "pau s b")):
        lines = (f"{0.1 * (n + 1):.5f} 125 {phone}" for n, phone in enumerate(phones.split()))
        files[f"./lab/ru_{k}.lab"] = "\n".join(["#", *lines]).encode()
    deb = write_deb(tmp_path / "festvox-ru_1_all.deb", files)
    settings = {"data": tmp_path, "cache": tmp_path / "cache", "utterances": 2, "held_out": 1, "bands": 8}
    train, held_out, units = load_corpus("festvox", **settings, units="phones")
    assert (train.texts, held_out.texts, units.symbols) == (["b ay", "ay s s"], ["s b"], ["ay", "b", "s"])
    assert [target.tolist() for target in train.targets] == [[2, 1], [1, 3, 3]]
    deb.unlink()
    again, _, _ = load_corpus("festvox", **settings, units="phones")
    assert again.texts == train.texts
    phones = record_phones(data=tmp_path, cache=tmp_path / "cache")
    assert [phone.name for phone in phones[0]] == ["b", "ay"] and phones[0][1].begin == pytest.approx(0.2)
    with pytest.raises(ValueError, match="only \"festvox\" has phones, not 'generated'"):
        load_corpus("generated", units="phones")


def test_corpora_have_names():
    with pytest.raises(ValueError, match="no corpus 'timit', only espeak, festvox, generated"):
        load_corpus("timit", units=10)
    with pytest.raises(ValueError, match="must be a number, not 'characters'"):
        load_corpus("generated", units="characters")


@pytest.mark.parametrize("seed", [None, 3])
def test_batches_hold_every_utterance_once(seed):
    train, _, _ = small_corpus(utterances=61)
    rng = None if seed is None else np.random.default_rng(seed)
    rows, spread = [], []
    for batch in batches(train, 4, rng):
        assert batch.frames.shape[:2] == (len(batch.rows), batch.frame_lengths.max())
        assert batch.targets.shape == (len(batch.rows), batch.target_lengths.max())
        assert (batch.frames.dtype, batch.targets.dtype) == (np.float32, np.int32)
        for b, row in enumerate(batch.rows):
            T, U = batch.frame_lengths[b], batch.target_lengths[b]
            np.testing.assert_array_equal(batch.frames[b, :T], train.features[row])
            np.testing.assert_array_equal(batch.targets[b, :U], train.targets[row])
            assert not batch.frames[b, T:].any()
            assert not batch.targets[b, U:].any()
        rows += batch.rows.tolist()
        spread.append(np.ptp(batch.frame_lengths))
    assert sorted(rows) == list(range(61))
    assert np.median(spread) <= 3
    if seed is not None:
        again = [batch.rows.tolist() for batch in batches(train, 4, np.random.default_rng(seed))]
        assert list(itertools.chain(*again)) == rows
        # Who meets whom changes from epoch to epoch, and the batches do not come from short to long.
        first, second = ({frozenset(batch.rows.tolist()) for batch in batches(train, 4, rng)} for _ in range(2))
        assert len(first & second) < len(first) / 2
        longest = [batch.frame_lengths.max() for batch in batches(train, 4, rng)]
        assert longest != sorted(longest)
