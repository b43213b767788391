"""The posterior of every lattice cell of one string, and its best path."""

from typing import NamedTuple

import numpy as np

from lattice import joint_transducer_alignment, joint_transducer_posteriors

from .network import Arrays, forward
from .strings import BLANK, DigitStrings


class LatticePicture(NamedTuple):
    """What the picture of one lattice shows.

    posterior : (T, U+1), the probability that an alignment visits cell (t, u).
    label_frames : (U,) int, the frame on which the best path emits each label.
    """

    posterior: np.ndarray
    label_frames: np.ndarray


def lattice_picture(parameters: Arrays, string: DigitStrings) -> LatticePicture:
    """Posteriors and best path of `string`, a batch of one."""
    encoder, predictor, _ = forward(parameters, string)
    output = parameters["output.weight"], parameters["output.bias"]
    return lattice_picture_arrays(encoder[0], predictor[0], *output, string.targets[0], BLANK)


def lattice_picture_arrays(
    encoder: np.ndarray, predictor: np.ndarray, weight: np.ndarray, bias: np.ndarray, targets: np.ndarray, blank: int
) -> LatticePicture:
    """Posteriors and best path of one lattice, in float64.

    Parameters
    ----------
    encoder : (T, H)
    predictor : (U+1, H)
    weight : (V, H)
    bias : (V,)
    targets : (U,) int
    blank : int
        In 0..V-1.

    Returns
    -------
    LatticePicture
    """
    rows = encoder[None], predictor[None], weight, bias
    given = (
        *(array.astype(np.float64) for array in rows),
        targets[None],
        np.array([len(encoder)]),
        np.array([len(targets)]),
    )
    (label_frames,), _ = joint_transducer_alignment(*given, blank=blank)
    _, (of_blank,), (of_label,) = joint_transducer_posteriors(*given, blank=blank, posterior_floor=0)
    return LatticePicture(of_blank + of_label, label_frames)
