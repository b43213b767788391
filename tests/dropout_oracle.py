"""The mask of dropout from its definition in `lattice/kernels/dropout.py`, in NumPy. Imports neither package."""

import numpy as np

LOW, HALF = np.uint64(0xFFFFFFFF), np.uint64(32)


def philox(counter, key):
    """Philox 4x32-10 of four counters and two keys, uint64 arrays of words: four arrays."""
    a, b, c, d = counter
    e, f = key
    for _ in range(10):
        first, second = np.uint64(0xD2511F53) * a, np.uint64(0xCD9E8D57) * c
        a, b, c, d = (second >> HALF) ^ b ^ e, second & LOW, (first >> HALF) ^ d ^ f, first & LOW
        e, f = (e + np.uint64(0x9E3779B9)) & LOW, (f + np.uint64(0xBB67AE85)) & LOW
    return a, b, c, d


def threshold_of(rate):
    """Draws of 65536 that drop an entry."""
    return min(round(rate * 65536), 65535)


def draws(dropout, n, t, u):
    """What the kernels are given of a group: the seed, the threshold, n and t of its frames, u of its positions."""
    head = np.array([dropout[1], threshold_of(dropout[0])], np.uint64).view(np.int64)
    return np.concatenate([head, np.asarray(n) << 32 | t, u])


def mask(dropout, n, t, u, h):
    """0 for what is dropped, and what all other entries are multiplied by: float64, of uint64 arrays of one shape."""
    rate, seed = dropout
    # Entries of a block are 32 apart, and eight blocks' worth of entries come before the next 32 blocks.
    block = h // np.uint64(256) * np.uint64(32) + h % np.uint64(32)
    place = (h % np.uint64(256) // np.uint64(32)).astype(np.int64)  # 0 to 7
    key = np.uint64(seed) & LOW, np.uint64(seed) >> HALF
    words = np.stack(philox((block | np.uint64(2**31), u, t, n), key))
    word = np.take_along_axis(words, place[None] // 2, axis=0)[0]
    draw = (word >> (16 * (place % 2)).astype(np.uint64)) & np.uint64(0xFFFF)
    threshold = threshold_of(rate)
    return np.where(draw < threshold, 0.0, 65536 / (65536 - threshold))


def kept(dropout, n, frames, positions, width):
    """The mask of an example: (frames, positions, width)."""
    t, u, h = (index.astype(np.uint64) for index in np.indices((frames, positions, width)))
    return mask(dropout, np.full_like(t, n), t, u, h)
