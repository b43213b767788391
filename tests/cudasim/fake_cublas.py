"""cuBLAS's `gemmEx` on host memory: column by column, by address, and nothing checked, as the real one."""

import ctypes

import ml_dtypes
import numpy as np

TYPES = {0: np.dtype(np.float32), 1: np.dtype(np.float64), 2: np.dtype(np.float16), 14: np.dtype(ml_dtypes.bfloat16)}
COMPUTE_32F = 68


def column_major(address: int, kind: int, rows: int, columns: int, leading: int) -> np.ndarray:
    """The (rows, columns) matrix whose columns lie `leading` elements apart."""
    assert leading >= rows, (leading, rows)
    dtype = TYPES[kind]
    size = ((columns - 1) * leading + rows) * dtype.itemsize
    memory = np.frombuffer((ctypes.c_uint8 * size).from_address(address), dtype)
    return np.lib.stride_tricks.as_strided(memory, (rows, columns), (dtype.itemsize, leading * dtype.itemsize))


def gemmEx(handle, transa, transb, m, n, k, alpha, A, Atype, lda, B, Btype, ldb, beta, C, Ctype, ldc, computeType, algo):
    """C = alpha * op(A) @ op(B) + beta * C, summed in float32."""
    assert computeType == COMPUTE_32F
    a = column_major(A, Atype, *((k, m) if transa else (m, k)), lda)
    b = column_major(B, Btype, *((n, k) if transb else (k, n)), ldb)
    c = column_major(C, Ctype, m, n, ldc)
    alpha, beta = (ctypes.c_float.from_address(address).value for address in (alpha, beta))
    product = (a.T if transa else a).astype(np.float32) @ (b.T if transb else b).astype(np.float32)
    c[...] = alpha * product + (beta * c if beta else 0)
