"""Matrix products of a GPU: one call of cuBLAS for every dtype, added to what is there where that is asked for."""

import ctypes
import functools
from typing import NamedTuple

import numpy as np

from ..kernels.device_view import DeviceView

# Of the headers of CUDA: types of matrices, what cuBLAS computes in, and CUBLAS_GEMM_DEFAULT_TENSOR_OP.
_R_32F, _R_64F, _R_16BF = 0, 1, 14
COMPUTE_32F, COMPUTE_32F_PEDANTIC, COMPUTE_32F_FAST_TF32, COMPUTE_64F, COMPUTE_64F_PEDANTIC = 68, 69, 77, 70, 71
_DEFAULT_TENSOR_OP = 99
# Of CuPy: `COMPUTE_TYPE_PEDANTIC` and `COMPUTE_TYPE_TF32`, answers of `get_compute_type`.
_PEDANTIC, _TF32 = 2, 7


class _Kind(NamedTuple):
    """How operands of a dtype are multiplied.

    Attributes
    ----------
    operand, result : int
        Types of both operands and of the output, as cuBLAS numbers them.
    compute : int
        What cuBLAS computes in.
    settings : dict
        Another one instead, by what CuPy is set to.
    zero, one : int
        Addresses of two factors in the dtype that cuBLAS computes in.
    """

    operand: int
    result: int
    compute: int
    settings: dict
    zero: int
    one: int


# cuBLAS reads its factors by address, so they must stay.
_SINGLES, _DOUBLES = (ctypes.c_float * 2)(0, 1), (ctypes.c_double * 2)(0, 1)


@functools.cache
def _kind_of(dtype: np.dtype) -> _Kind:
    factors = _DOUBLES if dtype == np.float64 else _SINGLES
    addresses = ctypes.addressof(factors), ctypes.addressof(factors) + ctypes.sizeof(factors) // 2
    if dtype == np.float64:
        return _Kind(_R_64F, _R_64F, COMPUTE_64F, {_PEDANTIC: COMPUTE_64F_PEDANTIC}, *addresses)
    if dtype == np.float32:
        settings = {_PEDANTIC: COMPUTE_32F_PEDANTIC, _TF32: COMPUTE_32F_FAST_TF32}
        return _Kind(_R_32F, _R_32F, COMPUTE_32F, settings, *addresses)
    # bfloat16 is summed, and given out, in float32.
    return _Kind(_R_16BF, _R_32F, COMPUTE_32F, {}, *addresses)


def turned(matrix) -> int:
    """1 for the transposed view of a C-contiguous matrix, 0 for a C-contiguous matrix."""
    if type(matrix) is DeviceView:
        return int(matrix.turned)
    # A row or a column is both, and is taken for C-contiguous.
    if matrix.flags.c_contiguous:
        return 0
    if not matrix.flags.f_contiguous:
        raise ValueError(
            f"a matrix of strides {matrix.strides} and shape {matrix.shape} is no operand: expected one without gaps"
        )
    return 1


def gemm(cupy, a, b, out, add: bool = False, compute: int | None = None) -> None:
    """out = a @ b, or out += a @ b.

    Parameters
    ----------
    cupy : module
    a, b : (M, K), (K, N) float32, float64 or bfloat16, on a GPU
        C-contiguous, or transposed views of what is.
    out : (M, N)
        C-contiguous, of the dtype of the operands, float32 for bfloat16. It shares no memory with them.
    add : bool
    compute : int, optional
        What cuBLAS computes in, `COMPUTE_...`. By default what CuPy is set to.

    Raises
    ------
    CUBLASError
        cuBLAS refuses the product.
    """
    (M, K), N = a.shape, b.shape[1]
    if not (M and K and N):
        # An empty sum is 0, and cuBLAS refuses a leading dimension of 0.
        if not add:
            out.fill(0)
        return
    kind = _kind_of(a.dtype)
    if compute is None:
        compute = kind.compute
        # The function that CuPy's own products ask. CuPy has no public one.
        if kind.settings:
            compute = kind.settings.get(cupy._core.get_compute_type(a.dtype), compute)
    # cuBLAS counts columns first: out.T = b.T @ a.T.
    b_turned, a_turned = turned(b), turned(a)
    # Of each matrix its address, its type, and its leading dimension: how long its rows are in memory.
    left = b.data.ptr, kind.operand, K if b_turned else N
    right = a.data.ptr, kind.operand, M if a_turned else K
    handle = cupy.cuda.device.get_cublas_handle()
    cupy.cuda.cublas.gemmEx(
        handle, b_turned, a_turned, N, M, K, kind.one, *left, *right, kind.one if add else kind.zero, out.data.ptr,
        kind.result, N, compute, _DEFAULT_TENSOR_OP,
    )  # fmt: skip
