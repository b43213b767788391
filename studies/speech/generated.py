"""Pseudo-speech out of a random number generator, for tests and for vocabularies of any size: nothing is downloaded."""

import numpy as np

# Frames of 10 ms. At 4 frames an encoder frame, each unit has at least two, so CTC can align repeated units too.
MIN_FRAMES, MAX_FRAMES = 8, 14
MIN_UNITS, MAX_UNITS = 3, 12
KNOTS = 4  # points of a unit's trajectory; what lies between them is interpolated
NOISE = 0.5  # standard deviation, where that of the trajectories is 1


def unit_names(count: int) -> list[str]:
    """Names of `count` units: u1, u2, ..."""
    return [f"u{k}" for k in range(1, count + 1)]


def unit_law(count: int) -> np.ndarray:
    """Probabilities of the units, (count,): about those of words, which fall with the rank (Zipf 1949)."""
    weights = 1 / (np.arange(count) + 3)
    return weights / weights.sum()


def speak(units: np.ndarray, trajectories: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Run through the units' trajectories, each in a random number of frames, with noise: (T, F) float32."""
    pieces = []
    for unit, length in zip(units, rng.integers(MIN_FRAMES, MAX_FRAMES + 1, size=len(units))):
        place = np.linspace(0, KNOTS - 1, length)
        left = np.minimum(place.astype(int), KNOTS - 2)
        share = (place - left)[:, None]
        pieces.append((1 - share) * trajectories[unit, left] + share * trajectories[unit, left + 1])
    frames = np.concatenate(pieces)
    return (frames + NOISE * rng.standard_normal(frames.shape)).astype(np.float32)


def generate(count: int, *, units: int, bands: int, seed: int) -> tuple[list[str], list[np.ndarray]]:
    """Distinct texts of 3 to 12 units, and a sound for each.

    Parameters
    ----------
    count : int
        Number of utterances.
    units : int
        Size of the inventory. Frequent units come first.
    bands : int
        F.
    seed : int

    Returns
    -------
    texts : list of str
        Names of units with a space between them.
    features : list of (T, F) float32
        Frames of 10 ms; T is 8 to 14 for each unit.
    """
    for_units, for_texts, for_sounds = np.random.default_rng(seed).spawn(3)
    trajectories = for_units.standard_normal((units, KNOTS, bands))
    names, law = unit_names(units), unit_law(units)
    chosen = {}
    while len(chosen) < count:
        drawn = for_texts.choice(units, size=for_texts.integers(MIN_UNITS, MAX_UNITS + 1), p=law)
        chosen[" ".join(names[unit] for unit in drawn)] = drawn
    return list(chosen), [speak(drawn, trajectories, for_sounds) for drawn in chosen.values()]
