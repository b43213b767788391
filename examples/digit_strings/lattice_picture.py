"""The posterior of every lattice cell of one string, and its best path."""

from typing import NamedTuple

import numpy as np

from lattice import transducer_alignment, transducer_loss_and_grad

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

    The gradient of a logit is the posterior of its cell times the softmax, less the probability of the arc with its id.
    No arc has the spare id that is added here, so its gradient is the posterior times its softmax, which is 1/2. All
    alignments have T + U arcs, and the spare id takes half the probability of each: their shares stay as they are.

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
    logits = np.tanh(encoder[:, None] + predictor).astype(np.float64) @ weight.T + bias  # (T, U+1, V)
    spare = np.logaddexp.reduce(logits, axis=-1, keepdims=True)  # as probable as all other ids together
    batch = np.concatenate((logits, spare), axis=-1)[None]  # (1, T, U+1, V+1)
    lengths = targets[None], np.array([len(encoder)]), np.array([len(targets)])
    (label_frames,), _ = transducer_alignment(batch, *lengths, blank=blank)
    _, (grad,) = transducer_loss_and_grad(batch, *lengths, blank=blank, out=batch)
    return LatticePicture(2 * grad[:, :, -1], label_frames)
