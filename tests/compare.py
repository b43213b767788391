"""The tolerance policy. No test states a tolerance of its own for a comparison with the oracle.

``|ours - truth| <= 2 * |naive same-dtype - truth| + k * eps(dtype) * scale``

where ``|.|`` is the largest magnitude over one example (a single entry may be exact in the naive computation by luck),
`truth` is the oracle in a wider dtype, `naive` the oracle wholly in the dtype under test, and `scale` the size of the
numbers that the result is made of. The scale is at least 1, because gradients are differences of probabilities and
losses are sums of their logarithms. Half-precision results are accumulated in float32 and rounded once, so `eps` is
float32's and `naive` is the float32 oracle rounded to the dtype. Magnitudes below the smallest normal number (float16:
the smallest number) may be written as 0, so the comparison always allows that much.
"""

import ml_dtypes
import numpy as np


def assert_close(ours, truth, naive, *, k=16.0, scale=None, slack=0.0, per_example=False, what="result"):
    """Fail unless `ours` is as near to the truth as the policy asks.

    Parameters
    ----------
    ours, truth, naive : arrays of one shape
        `naive` is rounded to the dtype of `ours`.
    k : float
    scale : float or (B,) array, optional
        Default: the largest finite magnitude of the truth, at least 1.
    slack : float
        What the contract itself lets go, `posterior_floor` for one.
    per_example : bool
        Judge each entry of the first axis by itself.
    what : str
        What is compared, for the message.
    """
    ours, truth = np.asarray(ours), np.asarray(truth)
    info = ml_dtypes.finfo(ours.dtype)
    tiny = float(info.smallest_subnormal if ours.dtype == np.float16 else info.tiny)
    eps = float(np.finfo(np.float64 if ours.dtype == np.float64 else np.float32).eps)
    naive = np.asarray(naive).astype(ours.dtype)
    assert ours.shape == truth.shape == naive.shape, f"{what}: shapes {ours.shape}, {truth.shape}, {naive.shape}"
    if per_example:
        for b in range(len(ours)):
            own = scale if scale is None or np.ndim(scale) == 0 else scale[b]
            assert_close(ours[b], truth[b], naive[b], k=k, scale=own, slack=slack, what=f"{what}[{b}]")
        return
    ours, naive = ours.astype(np.longdouble), naive.astype(np.longdouble)
    finite = np.isfinite(truth)
    same = np.where(finite, np.isfinite(ours), (ours == truth) | (np.isnan(ours) & np.isnan(truth)))
    if not same.all():
        where = tuple(np.argwhere(~same)[0].tolist())
        raise AssertionError(
            f"{what}{list(where)} is {ours[where]}, truth {truth[where]} ({(~same).sum()} of {same.size} entries)"
        )
    if not finite.any():
        return
    if scale is None:
        scale = max(1.0, np.abs(truth[finite]).max())
    with np.errstate(invalid="ignore"):
        error = np.where(finite, np.abs(ours - truth), 0)
        naive_error = np.where(finite & np.isfinite(naive), np.abs(naive - truth), 0)
    bound = 2 * naive_error.max() + k * eps * scale + slack + tiny
    worst = np.unravel_index(error.argmax(), error.shape)
    if error[worst] > bound:
        raise AssertionError(
            f"{what}{[int(i) for i in worst]} is {ours[worst]}, truth {truth[worst]}, naive {naive[worst]}: "
            f"off by {error[worst]:.3e}, allowed {bound:.3e} = "
            f"2 * {naive_error.max():.3e} + {k} * {eps:.1e} * {float(scale):.3e} + {slack:.1e} "
            f"({(error > bound).sum()} of {error.size} entries)"
        )


def assert_same(ours, other, *, slack=0.0, **options):
    """Two ways to one number, both of them ours: equal to rounding, half precision rounded to either side."""
    ours, other = np.asarray(ours), np.asarray(other)
    assert ours.dtype == other.dtype, (ours.dtype, other.dtype)
    if ours.dtype.itemsize == 2:
        magnitude = np.abs(other.astype(np.float64))
        slack += float(ml_dtypes.finfo(other.dtype).eps) * magnitude[np.isfinite(magnitude)].max(initial=0)
    assert_close(ours, other, other, slack=slack, **options)


def assert_relative_l2(ours, truth, limit, *, what="result"):
    """Fail unless the l2 distance from the truth is at most `limit` times the truth's l2 norm."""
    ours, truth = np.asarray(ours).astype(np.float64), np.asarray(truth, np.float64)
    error = np.linalg.norm(ours - truth) / np.linalg.norm(truth)
    assert error <= limit, f"{what}: relative l2 error {error:.3e}, allowed {limit:.3e}"
