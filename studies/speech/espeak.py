"""English speech synthesised by espeak-ng, whose library and voices come in the wheel `espeakng-loader`.

What the synthesiser says depends on all that it said before, and it cannot be set back. So a fixed number of utterances
is spoken by a process of its own, which is this file run as a program: a corpus is then the same on every run.
"""

import ctypes
import importlib.util
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

SAMPLING_RATE = 22_050
UTTERANCES_PER_PROCESS = 100

# Numbers of espeak-ng's speak_lib.h.
AUDIO_OUTPUT_SYNCHRONOUS = 2
CHARS_UTF8 = 1
POSITION_CHARACTER = 1
RATE, PITCH = 1, 3


class Voice(NamedTuple):
    """A voice and the ranges its speakers vary in: words a minute, and pitch from 0 to 100, the voice's own at 50."""

    name: str
    rates: tuple[int, int] = (150, 200)
    pitches: tuple[int, int] = (40, 60)


VOICES = (Voice("en-us"), Voice("en-us+f3"), Voice("en-gb-x-rp+m3"))


class Line(NamedTuple):
    """What is to be said, and how."""

    text: str
    voice: str
    rate: int
    pitch: int


def cast_voices(texts: list[str], voices: tuple[Voice, ...], seed: int) -> list[Line]:
    """Give each text a random voice, rate and pitch."""
    rng = np.random.default_rng(seed)
    chosen, rates, pitches = rng.integers(len(voices), size=len(texts)), rng.random(len(texts)), rng.random(len(texts))
    lines = []
    for text, voice, rate, pitch in zip(texts, (voices[k] for k in chosen), rates, pitches):
        lines.append(
            Line(
                text,
                voice.name,
                round(np.interp(rate, (0, 1), voice.rates)),
                round(np.interp(pitch, (0, 1), voice.pitches)),
            )
        )
    return lines


def synthesise(lines: list[Line]) -> Iterator[np.ndarray]:
    """Speak each line, some processes at a time.

    Parameters
    ----------
    lines : list of Line

    Yields
    ------
    (N,) int16
        Samples at 22,050 Hz, the same on every run.

    Raises
    ------
    RuntimeError
        If espeakng-loader is not installed, or a process fails, as it does for an unknown voice.
    """
    if importlib.util.find_spec("espeakng_loader") is None:
        raise RuntimeError('speech synthesis needs espeakng-loader: pip install -e ".[speech]"')
    groups = [lines[begin : begin + UTTERANCES_PER_PROCESS] for begin in range(0, len(lines), UTTERANCES_PER_PROCESS)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for spoken in pool.map(speak_in_process, groups):
            yield from spoken


def speak_in_process(lines: list[Line]) -> list[np.ndarray]:
    """Speak lines in a fresh process: a list of (N,) int16."""
    done = subprocess.run(
        [sys.executable, __file__], input=json.dumps(lines).encode(), capture_output=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"espeak-ng failed: {done.stderr.decode(errors='replace').strip()}")
    arrays = np.load(io.BytesIO(done.stdout))
    return np.split(arrays["samples"], np.cumsum(arrays["lengths"])[:-1])


class Speaker:
    """espeak-ng in this process.

    The library calls back with pieces of sound while it speaks; `pieces` collects them.
    """

    def __init__(self):
        import espeakng_loader

        self.pieces = []
        self.library = ctypes.cdll.LoadLibrary(espeakng_loader.get_library_path())
        rate = self.library.espeak_Initialize(AUDIO_OUTPUT_SYNCHRONOUS, 0, espeakng_loader.get_data_path().encode(), 0)
        if rate != SAMPLING_RATE:
            raise RuntimeError(f"espeak_Initialize returned {rate}, not the sampling rate {SAMPLING_RATE}")
        # Initialising draws a seed from the clock.
        self.library.espeak_ng_SetRandSeed(ctypes.c_long(1))
        prototype = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
        # The library keeps a bare pointer to the callback: it must live as long as this object.
        self.callback = prototype(self.collect)
        self.library.espeak_SetSynthCallback(self.callback)

    def collect(self, samples, count: int, events) -> int:
        """Keep a piece of sound; 0 asks for more."""
        if samples and count:
            self.pieces.append(ctypes.string_at(samples, 2 * count))
        return 0

    def speak(self, line: Line) -> np.ndarray:
        """The sound of one line: (N,) int16."""
        if self.library.espeak_SetVoiceByName(line.voice.encode()) != 0:
            raise ValueError(f"espeak-ng has no voice {line.voice}")
        self.library.espeak_SetParameter(RATE, line.rate, 0)
        self.library.espeak_SetParameter(PITCH, line.pitch, 0)
        self.pieces.clear()
        text = line.text.encode()
        size = ctypes.c_size_t(len(text) + 1)
        status = self.library.espeak_Synth(text, size, 0, POSITION_CHARACTER, 0, CHARS_UTF8, None, None)
        if status != 0:
            raise RuntimeError(f"espeak_Synth returned {status} for {line}")
        return np.frombuffer(b"".join(self.pieces), np.int16)


def main() -> None:
    """Read lines as JSON, write their sounds as one file of arrays."""
    speaker = Speaker()
    spoken = [speaker.speak(Line(*line)) for line in json.load(sys.stdin)]
    packed = io.BytesIO()
    np.savez(packed, samples=np.concatenate(spoken), lengths=[len(samples) for samples in spoken])
    sys.stdout.buffer.write(packed.getvalue())


if __name__ == "__main__":
    main()
