"""cuBLAS's `gemmEx` on host memory: column by column, by address, with the checks of the real one and no others.

What it cannot see is what the real one cannot: that memory behind an address is laid out as the leading dimension says.
`refused` makes it turn down products by their (m, n, k), as a release might.
"""

import ctypes

import ml_dtypes
import numpy as np

TYPES = {0: np.dtype(np.float32), 1: np.dtype(np.float64), 2: np.dtype(np.float16), 14: np.dtype(ml_dtypes.bfloat16)}
COMPUTE_32F, COMPUTE_32F_PEDANTIC, COMPUTE_TF32, COMPUTE_64F, COMPUTE_64F_PEDANTIC = 68, 69, 77, 70, 71
_SINGLE, _DOUBLE = {(0, 0), (2, 2), (2, 0), (14, 14), (14, 0)}, {(1, 1)}
SUPPORTED = {
    COMPUTE_32F: _SINGLE,
    COMPUTE_32F_PEDANTIC: _SINGLE,
    COMPUTE_TF32: {(0, 0)},
    COMPUTE_64F: _DOUBLE,
    COMPUTE_64F_PEDANTIC: _DOUBLE,
}
"""Types of A (and B) and of C, of those here, by what is computed in."""
ALGORITHMS = {-1, *range(24), *range(99, 116)}
NOT_INITIALIZED, INVALID_VALUE, NOT_SUPPORTED = 1, 7, 15
NAMES = {1: "CUBLAS_STATUS_NOT_INITIALIZED", 7: "CUBLAS_STATUS_INVALID_VALUE", 15: "CUBLAS_STATUS_NOT_SUPPORTED"}

refused: set[tuple[int, int, int]] = set()


class CUBLASError(RuntimeError):
    def __init__(self, status):
        self.status = status
        super().__init__(NAMES[status])


def column_major(address: int, kind: int, rows: int, columns: int, leading: int) -> np.ndarray:
    """The (rows, columns) matrix whose columns lie `leading` elements apart."""
    dtype = TYPES[kind]
    size = ((columns - 1) * leading + rows) * dtype.itemsize
    memory = np.frombuffer((ctypes.c_uint8 * size).from_address(address), dtype)
    return np.lib.stride_tricks.as_strided(memory, (rows, columns), (dtype.itemsize, leading * dtype.itemsize))


def gemmEx(
    handle, transa, transb, m, n, k, alpha, A, Atype, lda, B, Btype, ldb, beta, C, Ctype, ldc, computeType, algo
):
    """C = alpha * op(A) @ op(B) + beta * C, summed in float32 or float64."""
    for number in (transa, transb, m, n, k, lda, ldb, ldc, A, B, C, alpha, beta, computeType, algo):
        if type(number) is not int:
            raise TypeError(f"an integer is required, got {type(number).__name__}")
    if handle is None:
        raise CUBLASError(NOT_INITIALIZED)
    shape_a, shape_b = (k, m) if transa else (m, k), (n, k) if transb else (k, n)
    least = ((lda, shape_a[0]), (ldb, shape_b[0]), (ldc, m))
    if min(m, n, k) < 0 or {transa, transb} - {0, 1, 2} or any(given < max(1, rows) for given, rows in least):
        raise CUBLASError(INVALID_VALUE)
    if not (alpha and beta and A and B and C) or algo not in ALGORITHMS:
        raise CUBLASError(INVALID_VALUE)
    if Atype != Btype or (Atype, Ctype) not in SUPPORTED.get(computeType, ()) or (m, n, k) in refused:
        raise CUBLASError(NOT_SUPPORTED)
    if any(address % TYPES[kind].itemsize for address, kind in ((A, Atype), (B, Btype), (C, Ctype))):
        raise CUBLASError(INVALID_VALUE)
    if not (m and n):
        return
    a, b = column_major(A, Atype, *shape_a, lda), column_major(B, Btype, *shape_b, ldb)
    c = column_major(C, Ctype, m, n, ldc)
    double = computeType in (COMPUTE_64F, COMPUTE_64F_PEDANTIC)
    factor, real = (ctypes.c_double, np.float64) if double else (ctypes.c_float, np.float32)
    alpha, beta = (factor.from_address(address).value for address in (alpha, beta))
    a, b = (a.T if transa else a).astype(real), (b.T if transb else b).astype(real)
    if computeType == COMPUTE_TF32:
        a, b = in_tf32(a), in_tf32(b)
    c[...] = alpha * (a @ b) + (beta * c if beta else 0)


def in_tf32(matrix: np.ndarray) -> np.ndarray:
    """float32 rounded to the 10 bits of a fraction that TF32 has; what is not finite stays as it is."""
    rounded = ((matrix.view(np.uint32) + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)
    return np.where(np.isfinite(matrix), rounded, matrix)
