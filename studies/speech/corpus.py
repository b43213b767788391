"""Corpora ready to train on: stacked, normalised log-mel features, and the units of their transcripts."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .debian import package_file
from .espeak import SAMPLING_RATE as ESPEAK_RATE
from .espeak import VOICES, Voice, cast_voices, synthesise
from .features import log_mel, mean_and_deviation, stack_frames
from .festvox import PACKAGE as FESTVOX
from .festvox import SAMPLING_RATE as FESTVOX_RATE
from .festvox import Phone, read_festvox, read_phones
from .generated import generate, unit_names
from .text import PACKAGES, read_sentences
from .units import SymbolUnits, Units, train_units

Recorded = tuple[list[str], list[np.ndarray]]  # texts, and (T, F) frames of 10 ms for each


class Size(NamedTuple):
    """Utterances to train on and held out, and frames of 10 ms that make one encoder frame."""

    utterances: int
    held_out: int
    stack: int


DEFAULT_SIZES = {"espeak": Size(6000, 400, 8), "festvox": Size(560, 60, 4), "generated": Size(1000, 100, 4)}


class Utterances(NamedTuple):
    """features : list of (T, F) float32; targets : list of (U,) int32 ids; texts : list of str."""

    features: list[np.ndarray]
    targets: list[np.ndarray]
    texts: list[str]


def alignable_rows(utterances: Utterances) -> list[int]:
    """The places of those that CTC can align: a frame for each label, and one more between two that are equal."""
    return [
        row
        for row, (frames, target) in enumerate(zip(utterances.features, utterances.targets))
        if len(frames) >= len(target) + np.count_nonzero(target[1:] == target[:-1])
    ]


def take(utterances: Utterances, rows: list[int]) -> Utterances:
    """The utterances at some places."""
    return Utterances(*([column[row] for row in rows] for column in utterances))


def alignable(utterances: Utterances) -> Utterances:
    """Those that CTC can align."""
    return take(utterances, alignable_rows(utterances))


def recorded_once(cache: Path, name: str, recipe: dict, record: Callable[[], Recorded]) -> Recorded:
    """What `record` returns, kept in `cache` under a name that tells the recipe; the frames come in half precision."""
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
    path = cache / f"{name}-{digest[:12]}.npz"
    if not path.exists():
        texts, features = record()
        cache.mkdir(parents=True, exist_ok=True)
        # Under its final name a file is whole.
        unfinished = path.with_suffix(".unfinished.npz")
        np.savez(
            unfinished,
            texts=texts,
            lengths=[len(frames) for frames in features],
            frames=np.concatenate(features).astype(np.float16),
            recipe=json.dumps(recipe),
        )
        unfinished.rename(path)
    with np.load(path) as arrays:
        return arrays["texts"].tolist(), np.split(arrays["frames"], np.cumsum(arrays["lengths"])[:-1])


def record_espeak(
    count: int,
    *,
    data: Path | None,
    cache: Path,
    seed: int,
    bands: int,
    words: tuple[int, int],
    voices: tuple[Voice, ...],
) -> Recorded:
    """Distinct English sentences in random order, spoken by espeak-ng."""

    def record() -> Recorded:
        debs = [package_file(package, cache / "debian", data=data) for package in PACKAGES]
        sentences = read_sentences(debs, min_words=words[0], max_words=words[1])
        if len(sentences) < count:
            raise ValueError(
                f"there are {len(sentences)} sentences of {words[0]} to {words[1]} words, fewer than {count}"
            )
        texts = [sentences[k] for k in np.random.default_rng(seed).permutation(len(sentences))[:count]]
        spoken = synthesise(cast_voices(texts, voices, seed))
        return texts, [log_mel(samples, ESPEAK_RATE, bands=bands) for samples in spoken]

    recipe = {"count": count, "seed": seed, "bands": bands, "words": words, "voices": voices}
    return recorded_once(cache, "espeak", recipe, record)


def record_festvox(*, data: Path | None, cache: Path, bands: int) -> Recorded:
    """All sentences of festvox-ru, in the order in which they were read."""

    def record() -> Recorded:
        recordings = read_festvox(package_file(FESTVOX, cache / "debian", data=data))
        return [r.text for r in recordings], [log_mel(r.samples, FESTVOX_RATE, bands=bands) for r in recordings]

    return recorded_once(cache, "festvox", {"bands": bands}, record)


def record_phones(*, data: Path | None, cache: Path) -> list[list[Phone]]:
    """The phones of all sentences of festvox-ru with their times, kept in `cache`."""
    path = cache / "festvox-phones.json"
    if not path.exists():
        phones = read_phones(package_file(FESTVOX, cache / "debian", data=data))
        cache.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".unfinished.json")
        unfinished.write_text(json.dumps(phones))
        unfinished.rename(path)
    return [[Phone(*phone) for phone in sentence] for sentence in json.loads(path.read_text())]


def load_corpus(
    name: str,
    *,
    data: Path | None = None,
    cache: Path = Path("out/speech"),
    units: int | str = "characters",
    utterances: int | None = None,
    held_out: int | None = None,
    seed: int = 0,
    stack: int | None = None,
    bands: int = 40,
    words: tuple[int, int] = (4, 10),
    voices: tuple[Voice, ...] = VOICES,
) -> tuple[Utterances, Utterances, Units]:
    """A corpus in two parts, without a sentence that is in both, and its units.

    Parameters
    ----------
    name : {"espeak", "festvox", "generated"}
        English sentences spoken by espeak-ng; 620 Russian sentences read by one man, the last of them held out;
        pseudo-speech.
    data : Path, optional
        Folder with the Debian packages, so that nothing is downloaded.
    cache : Path
        Keeps the packages and the features, which are computed at the first call; "generated" uses no disk.
    units : int, "characters" or "phones"
        A number of pieces of words, found in the training transcripts. For "generated" the size of its inventory, which
        has no characters. Only "festvox" has phones: the texts are their names then, without pauses.
    utterances, held_out : int, optional
        How many; the defaults are in `DEFAULT_SIZES`.
    seed : int
        Chooses and orders the sentences, and the voices; without effect on "festvox".
    stack : int, optional
        Frames of 10 ms in one encoder frame: by default 8 for "espeak", else 4.
    bands : int
        Mel bands a frame.
    words : tuple of int
        Fewest and most words of a sentence of "espeak".
    voices : tuple of Voice
        Of "espeak".

    Returns
    -------
    train, held_out : Utterances
        Normalised by the training part; features have `stack * bands` values a frame. Of large stacks and small units,
        an utterance may have more labels than frames: see `alignable`.
    units : SymbolUnits or PieceUnits
        `units.vocab_size` is V, the blank included.

    Raises
    ------
    ValueError
        If the corpus is unknown or too small.
    RuntimeError, FileNotFoundError
        If a package cannot be had.
    """
    if name not in DEFAULT_SIZES:
        raise ValueError(f"no corpus {name!r}, only {', '.join(DEFAULT_SIZES)}")
    wanted = {"utterances": utterances, "held_out": held_out, "stack": stack}
    size = DEFAULT_SIZES[name]._replace(**{key: value for key, value in wanted.items() if value is not None})
    count = size.utterances + size.held_out
    if units == "phones" and name != "festvox":
        raise ValueError(f'only "festvox" has phones, not {name!r}')
    if name == "espeak":
        texts, features = record_espeak(
            count, data=data, cache=cache, seed=seed, bands=bands, words=words, voices=voices
        )
    elif name == "festvox":
        texts, features = record_festvox(data=data, cache=cache, bands=bands)
    else:
        if not isinstance(units, int):
            raise ValueError(f'units of "generated" must be a number, not {units!r}')
        texts, features = generate(count, units=units, bands=bands, seed=seed)
    if count > len(texts):
        raise ValueError(
            f"{name} has {len(texts)} utterances, fewer than {size.utterances} and {size.held_out} held out"
        )
    if units == "phones":
        texts = [" ".join(phone.name for phone in sentence) for sentence in record_phones(data=data, cache=cache)]
    # The held-out part is taken from the end: of festvox-ru, that is another page of another book.
    parts = slice(size.utterances), slice(len(texts) - size.held_out, None)
    if name == "generated":
        units = SymbolUnits(unit_names(units), separator=" ")
    elif units == "phones":
        units = SymbolUnits(sorted(set(" ".join(texts[parts[0]]).split())), separator=" ")
    else:
        units = train_units(units, texts[parts[0]])
    mean, deviation = mean_and_deviation(features[parts[0]])
    train, held_out = (
        Utterances(
            [stack_frames((frames - mean) / deviation, size.stack) for frames in features[part]],
            [units.encode(text) for text in texts[part]],
            texts[part],
        )
        for part in parts
    )
    return train, held_out, units
