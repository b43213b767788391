"""What the door of the internal language model is given -> a problem of the joint with one frame of zeros."""

import numpy as np

from ..device import arrays
from ..device.memory import device_of
from .checks import one_device, read_real
from .joint import JointProblem, check_dtypes, read_joint


def read_internal_language_model(
    predictor, weight, bias, targets, target_lengths, *, blank, activation, memory_limit, dropout=None
) -> JointProblem:  # fmt: skip
    """Check the arguments of `internal_language_model_loss_and_grad`.

    Returns
    -------
    JointProblem
        All examples share an encoder row of one frame, which is 0. So the lattice of an example is a path: a cell for
        each of its labels, and one behind the last.
    """
    predictor, weight = read_real(predictor, "predictor", (3,)), read_real(weight, "weight", (2,))
    bias = None if bias is None else read_real(bias, "bias", (1,))
    device = device_of(predictor)
    one_device(device, weight=weight, bias=bias)
    # The one wait for a GPU at this door, and only if integers lie there.
    targets, target_lengths = arrays.to_host(targets=targets, target_lengths=target_lengths)
    # What `read_joint` would say of an encoder that nobody has given.
    check_dtypes(predictor=predictor, weight=weight, bias=bias)
    B, _, H = predictor.shape
    if weight.shape[1] != H:
        raise ValueError(f"weight {weight.shape} and predictor {predictor.shape} disagree about H, their last axis")
    with device.active():
        encoder = device.empty((1, 1, H), predictor.dtype)
        arrays.bits(encoder).fill(0)
    given = encoder, predictor, weight, bias, targets, np.ones(B, np.int64), target_lengths
    shared = {"topology": "rnnt", "encoder_index": np.zeros(B, np.int64)}
    options = {"blank": blank, "activation": activation, "memory_limit": memory_limit, "dropout": dropout}
    return read_joint(*given, **options, **shared)
