"""Philox 4x32-10: blocks of random words as a function of a counter and a key (Salmon et al. 2011).

A counter-based generator has no state to share. Each entry of a batch asks for its own number, in any order, on any
number of threads, and gets the same bits on every target.
"""

import numpy as np
from numba import types
from numba.extending import overload, register_jitable

from .on_gpu import multiply_words

# A product of two words fits into a uint64, and its halves are taken apart by HALF and LOW.
LOW = np.uint64(0xFFFFFFFF)
HALF = np.uint64(32)
_MULTIPLY_0, _MULTIPLY_1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL_0, _WEYL_1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)


def _word(x, like):
    """A number below 2**32 in the type of a word."""
    return type(like)(x)


@overload(_word)
def _word_overload(x, like):
    if like == types.uint32:
        return lambda x, like: np.uint32(x)
    return lambda x, like: x


def _product(a, word):
    """The uint64 product of a number below 2**32 and a word."""
    return a * np.uint64(word)


@overload(_product)
def _product_overload(a, word):
    if word == types.uint32:
        return lambda a, word: multiply_words(np.uint32(a), word)
    return lambda a, word: a * word


@register_jitable(forceinline=True)
def philox(counter_0, counter_1, counter_2, counter_3, key_0, key_1):
    """The four words of one block, in the type of the counter and the key.

    All are uint64 numbers below 2**32, or on a GPU uint32.
    """
    # A loop around a call of this function vectorises, because the call is put in line.
    for _ in range(10):
        first, second = _product(_MULTIPLY_0, counter_0), _product(_MULTIPLY_1, counter_2)
        counter_0 = _word((second >> HALF) ^ counter_1 ^ key_0, key_0)
        counter_2 = _word((first >> HALF) ^ counter_3 ^ key_1, key_0)
        counter_1, counter_3 = _word(second & LOW, key_0), _word(first & LOW, key_0)
        key_0, key_1 = _word((key_0 + _WEYL_0) & LOW, key_0), _word((key_1 + _WEYL_1) & LOW, key_0)
    return counter_0, counter_1, counter_2, counter_3
