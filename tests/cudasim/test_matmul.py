"""Matrix products of a GPU in every layout and corner shape, against float64.

A product that cuBLAS refuses is told and made in another way.
"""

import itertools
import warnings

import ml_dtypes
import numpy as np
import pytest

from lattice.device.memory import HOST, Cuda
from lattice.device.workspace import Workspace
from tests.cudasim import fake_cublas

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
SIZES = (1, 2, 7)
SHAPES = list(itertools.product(SIZES, SIZES, SIZES))
DTYPES = (np.dtype(np.float32), np.dtype(np.float64), BFLOAT16)


def operand(device, rng, rows, columns, turned, dtype=BFLOAT16):
    """(matrix on the device, the same in float64)"""
    values = rng.standard_normal((columns, rows) if turned else (rows, columns)).astype(dtype)
    placed, wide = device.asarray(values), values.astype(np.float64)
    return (placed.T, wide.T) if turned else (placed, wide)


def product(device, shape, a_turned, b_turned, dtype=BFLOAT16, add=False):
    """The product as it came out, and in float64; with `add` both on top of the same numbers."""
    M, N, K = shape
    rng = np.random.default_rng(M + 10 * N + 100 * K)
    (a, wide_a), (b, wide_b) = (operand(device, rng, *size, dtype) for size in ((M, K, a_turned), (K, N, b_turned)))
    before = rng.standard_normal((M, N)).astype(np.float64 if dtype == np.float64 else np.float32)
    # Without `add` what was there must not matter, even if it is NaN.
    out = device.asarray(before if add else np.full_like(before, np.nan))
    Cuda(0).matmul(a, b, out, add)
    return device.asnumpy(out), wide_a @ wide_b + (before if add else 0)


@pytest.mark.parametrize("add", [False, True])
@pytest.mark.parametrize("b_turned", [False, True])
@pytest.mark.parametrize("a_turned", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_dtype_in_every_shape_and_layout(device, shape, a_turned, b_turned, add):
    for dtype, eps in zip(DTYPES, (1e-6, 1e-14, 1e-5)):
        with warnings.catch_warnings(action="error"):
            ours, truth = product(device, shape, a_turned, b_turned, dtype, add)
        np.testing.assert_allclose(ours, truth, rtol=eps, atol=eps, err_msg=dtype.name)


def test_float32_is_multiplied_in_tf32_where_cupy_is_set_to_it(device, monkeypatch):
    """TF32 keeps 10 bits of a fraction. The other dtypes do not ask."""
    exact = [np.abs(np.subtract(*product(device, (7, 7, 7), False, True, dtype))).max() for dtype in DTYPES]
    monkeypatch.setenv("CUPY_TF32", "1")
    rounded = [np.abs(np.subtract(*product(device, (7, 7, 7), False, True, dtype))).max() for dtype in DTYPES]
    assert exact[0] < 2**-20 and 2**-14 < rounded[0] < 2**-8 and exact[1:] == rounded[1:]


def test_the_host_adds_block_by_block(device):
    """The face of a host: the same call, whatever the number of rows that it works on at once."""
    rng = np.random.default_rng(0)
    a, b, before = rng.standard_normal((9, 7)), rng.standard_normal((9, 5)), rng.standard_normal((7, 5))
    for rows in (1, 3, 7, 20):
        out, space = before.copy(), Workspace(64 * 8)
        HOST.add_matmul(a.T, b, out, space, rows)
        np.testing.assert_allclose(out, before + a.T @ b, rtol=1e-13)
        assert not space._used
    out = device.asarray(before)
    Cuda(0).add_matmul(device.asarray(a).T, device.asarray(b), out, None, 1)
    np.testing.assert_allclose(device.asnumpy(out), before + a.T @ b, rtol=1e-13)


def test_a_product_of_float32_that_cublas_refuses_is_an_error(device, monkeypatch):
    monkeypatch.setattr(fake_cublas, "refused", {(4, 3, 5)})
    with pytest.raises(fake_cublas.CUBLASError, match="NOT_SUPPORTED"):
        product(device, (3, 4, 5), False, False, DTYPES[0])


@pytest.mark.parametrize("a_turned, b_turned", list(itertools.product([False, True], repeat=2)))
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 7, 5), (7, 1, 5), (7, 5, 1), (3, 4, 5)], ids=str)
@pytest.mark.parametrize("add", [False, True])
def test_what_cublas_refuses_is_told_and_made_in_float32(device, monkeypatch, shape, a_turned, b_turned, add):
    M, N, K = shape
    gemm = fake_cublas.gemmEx

    def refusing(handle, transa, transb, m, n, k, alpha, A, Atype, *others):
        monkeypatch.setattr(fake_cublas, "refused", {(N, M, K)} if Atype == 14 else set())
        gemm(handle, transa, transb, m, n, k, alpha, A, Atype, *others)

    monkeypatch.setattr(fake_cublas, "gemmEx", refusing)
    refused = rf"refuses the bfloat16 product \({M}, {K}\) by \({K}, {N}\): CUBLAS_STATUS_NOT_SUPPORTED"
    taken = rf"{refused}.* {4 * K * (M + N)} bytes"
    with pytest.warns(RuntimeWarning, match=taken):
        ours, truth = product(device, shape, a_turned, b_turned, add=add)
    np.testing.assert_allclose(ours, truth, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(0, 3, 2), (3, 0, 2), (3, 2, 0)], ids=str)
def test_a_product_of_nothing_is_zero(device, shape):
    ours, truth = product(device, shape, False, False)
    assert ours.shape == truth.shape and not ours.any()
    ours, truth = product(device, shape, False, False, add=True)
    np.testing.assert_allclose(ours, truth, rtol=1e-6)


@pytest.mark.parametrize("position", [0, 1])
def test_an_operand_with_gaps_is_refused(device, position):
    """A transposed slice of columns: its columns do not follow one another, and cuBLAS would read past them."""
    operands = [device.asarray(np.zeros((4, 4), BFLOAT16)) for _ in range(2)]
    operands[position] = device.asarray(np.zeros((4, 8), BFLOAT16))[:, :4].T
    with pytest.raises(ValueError, match=r"a matrix of strides \(2, 16\) and shape \(4, 4\) is no operand"):
        Cuda(0).matmul(*operands, device.empty((4, 4), np.float32))


RIGHT = {
    "handle": 0,
    "transa": 0,
    "transb": 0,
    "m": 3,
    "n": 4,
    "k": 5,
    "alpha": 64,
    "A": 64,
    "Atype": 14,
    "lda": 3,
    "B": 64,
    "Btype": 14,
    "ldb": 5,
    "beta": 64,
    "C": 64,
    "Ctype": 0,
    "ldc": 3,
    "computeType": 68,
    "algo": 99,
}
WRONG = {
    "lda": ({"lda": 2}, fake_cublas.INVALID_VALUE),
    "ldb": ({"ldb": 4}, fake_cublas.INVALID_VALUE),
    "ldc": ({"ldc": 2}, fake_cublas.INVALID_VALUE),
    "no rows and no leading dimension": ({"m": 0, "lda": 0}, fake_cublas.INVALID_VALUE),
    "size": ({"k": -1}, fake_cublas.INVALID_VALUE),
    "transpose": ({"transa": 3}, fake_cublas.INVALID_VALUE),
    "no memory": ({"B": 0}, fake_cublas.INVALID_VALUE),
    "algorithm": ({"algo": 50}, fake_cublas.INVALID_VALUE),
    "half an element": ({"A": 65}, fake_cublas.INVALID_VALUE),
    "types": ({"Btype": 0}, fake_cublas.NOT_SUPPORTED),
    "output": ({"Ctype": 2}, fake_cublas.NOT_SUPPORTED),
    "computing": ({"computeType": 64}, fake_cublas.NOT_SUPPORTED),
    "computing in TF32": ({"computeType": 77}, fake_cublas.NOT_SUPPORTED),
    "computing in float64": ({"Atype": 0, "Btype": 0, "computeType": 70}, fake_cublas.NOT_SUPPORTED),
}


@pytest.mark.parametrize("name", WRONG)
def test_the_stand_in_checks_as_cublas_does(name):
    changed, status = WRONG[name]
    with pytest.raises(fake_cublas.CUBLASError) as caught:
        fake_cublas.gemmEx(**RIGHT | changed)
    assert caught.value.status == status
