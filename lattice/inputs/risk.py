"""What the door of minimum Bayes risk is given -> a frozen Problem that its stages can trust."""

from dataclasses import dataclass

import numpy as np

from ..device import arrays
from ..device.memory import Cuda, Host, device_of
from .checks import MOST_FACTOR, index, read_lengths, read_number, read_real, refuse

MOST_RISK = 1e300
"""Sums over lists of risks up to here are finite."""


@dataclass(frozen=True)
class RiskProblem:
    """Scored hypotheses and their risks.

    Attributes
    ----------
    device : Host or Cuda
        Where the scores lie.
    scores : (B, N)
        Log-scores in nats. Half precision on the host is widened to float32.
    risks : (B, N) float64
        On the host; 0 beyond each list.
    lengths : (B,) int64
    scale : float
    dtype : np.dtype
        Of the results.
    """

    device: Host | Cuda
    scores: np.ndarray
    risks: np.ndarray
    lengths: np.ndarray
    scale: float
    dtype: np.dtype


def read_risk(scores, risks, lengths, scale) -> RiskProblem:
    """Check the arguments of `minimum_bayes_risk`."""
    array = read_real(scores, "scores", (2,))
    # Risks are few, and so judged on the host. This is the one wait for a GPU, and only if risks or lengths lie there.
    risks, lengths = arrays.to_host(risks=risks, lengths=lengths)
    risks = arrays.read(risks, "risks")
    if risks.dtype.kind not in "iu" and (risks.dtype.name not in arrays.REAL_NAMES or not risks.dtype.isnative):
        raise TypeError(f"risks has dtype {risks.dtype}, expected integers or one of {', '.join(arrays.REAL_NAMES)}")
    if risks.shape != array.shape:
        raise ValueError(f"risks has shape {risks.shape}, expected {array.shape} as scores")
    owner = f"scores {array.shape}"
    B, N = array.shape
    lengths = read_lengths(lengths, "lengths", B, low=1, high=N, source=f"axis 1 of {owner}", owner=owner)
    values = np.zeros(array.shape)  # (B, N) float64, in which an int64 risk may round
    np.copyto(values, risks, where=np.arange(N) < lengths[:, None])
    expected = f"expected a finite number up to {MOST_RISK} in magnitude"
    # Not `>`, which a NaN would pass.
    refuse(~(np.abs(values) <= MOST_RISK), lambda at: f"risks{index(at)} is {values[at]}, {expected}")
    bound = f"a finite number above 0 and at most {MOST_FACTOR:.0e}"
    scale = read_number(scale, "scale", 0.0, high=MOST_FACTOR, bound=bound)
    if scale == 0.0:
        raise ValueError(f"scale is {scale}, expected {bound}")
    device, dtype = device_of(array), arrays.computing_dtype(array.dtype)
    # A GPU's kernel reads half precision by itself.
    scores = array if device.on_gpu else array.astype(dtype, copy=False)
    return RiskProblem(device, scores, values, lengths, scale, dtype)
