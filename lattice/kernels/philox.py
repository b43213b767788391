"""Philox 4x32-10: blocks of random words as a function of a counter and a key (Salmon et al. 2011).

A counter-based generator has no state to share. Each entry of a batch asks for its own number, in any order, on any
number of threads, and gets the same bits on every target.
"""

import numpy as np
from numba.extending import register_jitable

# Words are 32 bits in uint64 numbers: a product of two words fits, and its halves are taken apart by HALF and LOW.
LOW = np.uint64(0xFFFFFFFF)
HALF = np.uint64(32)
_MULTIPLY_0, _MULTIPLY_1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL_0, _WEYL_1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)


@register_jitable(forceinline=True)
def philox(counter_0, counter_1, counter_2, counter_3, key_0, key_1):
    """The four words of one block, uint64 numbers below 2**32; so are the counter and the key."""
    # A loop around a call of this function vectorises, because the call is put in line.
    for _ in range(10):
        first, second = _MULTIPLY_0 * counter_0, _MULTIPLY_1 * counter_2
        counter_0 = (second >> HALF) ^ counter_1 ^ key_0
        counter_2 = (first >> HALF) ^ counter_3 ^ key_1
        counter_1, counter_3 = second & LOW, first & LOW
        key_0, key_1 = (key_0 + _WEYL_0) & LOW, (key_1 + _WEYL_1) & LOW
    return counter_0, counter_1, counter_2, counter_3
