"""Log-mel features of speech, their normalisation over a corpus, and the stacking of frames."""

import functools

import numpy as np

WINDOW_SECONDS = 0.025
HOP_SECONDS = 0.010
# Added to every energy, so that silence has a logarithm: about what rounding to 16 bits puts into a band.
FLOOR = 1e-6
FULL_SCALE = 32_768


def mel(hertz):
    """Frequency on the mel scale of O'Shaughnessy (1987), which is near linear below 1 kHz and logarithmic above."""
    return 2595 * np.log10(1 + np.asarray(hertz) / 700)


def mel_filters(sampling_rate: int, fft_size: int, bands: int) -> np.ndarray:
    """Triangles of height 1 whose corners are evenly spaced in mel from 0 Hz to half the sampling rate.

    Parameters
    ----------
    sampling_rate : int
        In Hz.
    fft_size : int
    bands : int

    Returns
    -------
    (fft_size // 2 + 1, bands) float32
    """
    corners = np.linspace(0, mel(sampling_rate / 2), bands + 2)
    bins = mel(np.arange(fft_size // 2 + 1) * sampling_rate / fft_size)[:, None]
    rising = (bins - corners[:-2]) / (corners[1:-1] - corners[:-2])
    falling = (corners[2:] - bins) / (corners[2:] - corners[1:-1])
    return np.maximum(0, np.minimum(rising, falling)).astype(np.float32)


@functools.cache
def analysis(sampling_rate: int, bands: int) -> tuple[np.ndarray, int, int, np.ndarray]:
    """The Hann window, the hop in samples, the FFT size and the filters for a sampling rate."""
    size, hop = round(WINDOW_SECONDS * sampling_rate), round(HOP_SECONDS * sampling_rate)
    fft_size = 1 << (size - 1).bit_length()
    return np.hanning(size).astype(np.float32), hop, fft_size, mel_filters(sampling_rate, fft_size, bands)


def log_mel(samples: np.ndarray, sampling_rate: int, *, bands: int = 40) -> np.ndarray:
    """Logarithms of the energies in mel bands, for windows of 25 ms every 10 ms.

    Parameters
    ----------
    samples : (N,) int16
    sampling_rate : int
        In Hz.
    bands : int
        F.

    Returns
    -------
    (T, F) float32
        In nats. T counts the windows that fit whole into the samples, at least one: shorter samples are filled up with
        zeros.
    """
    window, hop, fft_size, filters = analysis(sampling_rate, bands)
    samples = np.pad(samples, (0, max(0, len(window) - len(samples)))).astype(np.float32) / FULL_SCALE
    frames = np.lib.stride_tricks.sliding_window_view(samples, len(window))[::hop]
    spectrum = np.fft.rfft(frames * window, fft_size)
    energies = (spectrum.real**2 + spectrum.imag**2) @ filters
    return np.log(energies + np.float32(FLOOR))


def mean_and_deviation(features: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each band over all frames of a corpus, both (F,) float32."""
    count = sum(len(frames) for frames in features)
    # In float64: a corpus has millions of frames.
    mean = sum(frames.sum(axis=0, dtype=np.float64) for frames in features) / count
    variance = sum(((frames - mean) ** 2).sum(axis=0) for frames in features) / count
    return mean.astype(np.float32), np.sqrt(variance).astype(np.float32)


def stack_frames(frames: np.ndarray, stack: int) -> np.ndarray:
    """Lay each `stack` consecutive frames side by side, so that fewer remain.

    Parameters
    ----------
    frames : (T, F)
    stack : int

    Returns
    -------
    (ceil(T / stack), stack * F)
        Zeros fill up the last.
    """
    T, F = frames.shape
    return np.pad(frames, ((0, -T % stack), (0, 0))).reshape(-1, stack * F)
