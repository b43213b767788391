"""The Russian unit-selection corpus of the Debian package festvox-ru: 620 read sentences of one man, 1.66 hours."""

import io
import re
import wave
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .debian import package_members

PACKAGE = "festvox-ru"
SAMPLING_RATE = 16_000
SENTENCE = re.compile(r'\(\s*(\S+)\s+"((?:[^"\\]|\\.)*)"\s*\)')
PAUSE = "pau"


class Recording(NamedTuple):
    """One read sentence; `samples` is (N,) int16 at 16 kHz."""

    id: str
    text: str
    samples: np.ndarray


class Phone(NamedTuple):
    """A phone as it was spoken, from one time to another, in seconds."""

    name: str
    begin: float
    end: float


def clean_transcript(text: str) -> str:
    """Lower-case Cyrillic words with one space between them.

    A plus marks the stress of the vowel after it and is dropped; a hyphen becomes a space, as every other mark does.
    """
    return " ".join(re.sub(r"[^\u0430-\u044f\u0451 ]+", " ", text.lower().replace("+", "")).split())


def read_wave(content: bytes, name: str) -> np.ndarray:
    """Samples of a WAV file in memory: (N,) int16."""
    with wave.open(io.BytesIO(content)) as file:
        layout = (file.getnchannels(), file.getsampwidth(), file.getframerate())
        if layout != (1, 2, SAMPLING_RATE):
            raise ValueError(f"{name} has (channels, bytes a sample, Hz) {layout}, not {(1, 2, SAMPLING_RATE)}")
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


def read_sentences(deb: Path, ending: str, read: Callable) -> list[tuple]:
    """(id, transcript, what `read` makes of its file with that ending) of every sentence, in the order of their ids."""
    found, transcripts = {}, ""
    for name, content in package_members(deb):
        if name.endswith(ending):
            found[Path(name).stem] = read(content, name)
        elif name.endswith("/txt.done.data"):
            transcripts = content.decode()
    return [(id, text, found[id]) for id, text in sorted(SENTENCE.findall(transcripts))]


def read_festvox(deb: Path) -> list[Recording]:
    """All sentences of the corpus, in the order of their ids, which is that of the books they were read from.

    Parameters
    ----------
    deb : Path
        The package's file.

    Returns
    -------
    list of Recording
        191 MB of samples.
    """
    return [
        Recording(id, clean_transcript(text), samples) for id, text, samples in read_sentences(deb, ".wav", read_wave)
    ]


def read_labels(content: bytes, name: str) -> list[Phone]:
    """The phones of a label file, without the pauses between them: after a line `#`, lines `end_time 125 phone`."""
    phones, begin = [], 0.0
    header, *lines = content.decode().splitlines()
    if header != "#":
        raise ValueError(f"{name} begins with {header!r}, not with '#'")
    for line in lines:
        end, _, phone = line.split()
        if float(end) <= begin:
            raise ValueError(f"{name} has {phone!r} end at {end} s, not after {begin} s")
        phones.append(Phone(phone, begin, float(end)))
        begin = float(end)
    return [phone for phone in phones if phone.name != PAUSE]


def read_phones(deb: Path) -> list[list[Phone]]:
    """The phones of all sentences, in the order of `read_festvox`.

    Parameters
    ----------
    deb : Path
        The package's file.

    Returns
    -------
    list of lists of Phone
        50 different ones in 620 sentences.
    """
    return [phones for _, _, phones in read_sentences(deb, ".lab", read_labels)]
