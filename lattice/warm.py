"""Compile the kernels before the first step needs them."""

import numpy as np

from .joint import joint_transducer_loss_and_grad
from .transducer import transducer_loss_and_grad


def warm_up(*dtypes) -> None:
    """Compile every kernel, or load it from numba's cache on disk.

    The first call of a function compiles what it needs: about 6 s in all for one dtype on a two-core machine, and under a second
    once the results are cached (README, "First call"). Calling this at start-up moves that out of the first training step.

    Parameters
    ----------
    *dtypes : dtype-like
        float32, float64, float16 or bfloat16; float32 by default. Half precision is computed in float32.

    Raises
    ------
    TypeError
        A dtype is not one of these.
    """
    targets, one = np.ones((1, 1), np.int32), np.ones(1, np.int32)
    for dtype in dtypes or (np.float32,):
        logits = np.zeros((1, 1, 2, 2), dtype)
        transducer_loss_and_grad(logits, targets, one, one, out=logits)
        rows, weight, bias = np.zeros((1, 2, 1), dtype), np.zeros((2, 1), dtype), np.zeros(2, dtype)
        for options in ({}, {"vocabulary": np.arange(2, dtype=np.int32)[None]}):
            joint_transducer_loss_and_grad(rows[:, :1], rows, weight, bias, targets, one, one, **options)
