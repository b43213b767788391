"""The Russian unit-selection corpus of the Debian package festvox-ru: 620 read sentences of one man, 1.66 hours."""

import io
import re
import wave
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .debian import package_members

PACKAGE = "festvox-ru"
SAMPLING_RATE = 16_000
SENTENCE = re.compile(r'\(\s*(\S+)\s+"((?:[^"\\]|\\.)*)"\s*\)')


class Recording(NamedTuple):
    """One read sentence; `samples` is (N,) int16 at 16 kHz."""

    id: str
    text: str
    samples: np.ndarray


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
    samples, transcripts = {}, ""
    for name, content in package_members(deb):
        if name.endswith(".wav"):
            samples[Path(name).stem] = read_wave(content, name)
        elif name.endswith("/txt.done.data"):
            transcripts = content.decode()
    return [Recording(id, clean_transcript(text), samples[id]) for id, text in sorted(SENTENCE.findall(transcripts))]
