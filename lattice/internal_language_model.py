"""The internal language model of a transducer: what its predictor and output layer know of the next label."""

from typing import Any

import numpy as np

from .annotations import A, Activation, Array, Dropout
from .inputs import checks
from .inputs.internal_language_model import read_internal_language_model
from .tiles import path as paths
from .tiles.plan import per_target
from .tiles.pullback import JointGradients, Pullback

__all__ = ["internal_language_model_loss_and_grad"]


def internal_language_model_loss_and_grad(
    predictor: A, weight: Array, bias: Array | None, targets: Array, target_lengths: Array, *, blank: int = 0,
    activation: Activation = "tanh", grad_loss: Array | None = None, memory_limit: int | None = None,
    dropout: Dropout = None,
) -> tuple[A, JointGradients[A]]:  # fmt: skip
    """Cross-entropy of the labels under the internal language model, and its gradients (Variani et al. 2020).

    The joint without an encoder predicts label u from the labels before it. With the sum over all ids v but the blank,
    example b has the loss ::

        logits[b,u,:] = activation(predictor[b,u]) @ weight.T + bias
        loss[b] = sum_{u < U_b} log(sum_v exp(logits[b,u,v])) - logits[b,u,targets[b,u]].

    Added to a transducer's loss, with a weight, it makes of the predictor a language model (internal language model
    training, Meng et al. 2021). That model's score may be taken off in a search, and another one's added.

    Parameters
    ----------
    predictor : (B, U+1, H) float32, float64, float16 or bfloat16
        As in `joint_transducer_loss`. Row U_b, which follows the last label, has no label to predict.
    weight, bias : (V, H), (V,) or None
        As in `joint_transducer_loss`. The blank's entries count for nothing, if they are finite. No topology is given
        here, so all rows are ids. Of a "tdt" layer give the rows of the ids alone, `weight[:V]` and `bias[:V]`.
    targets, target_lengths, blank, activation
        As in `joint_transducer_loss`.
    grad_loss : (B,) real, optional
        Upstream gradient of any sign; ones by default.
    memory_limit
        As in `joint_transducer_loss`.
    dropout
        As in `joint_transducer_loss`, a mask times the activation. It is the mask of frame 0 there, so take another
        seed.

    Returns
    -------
    loss : (B,) float64 for float64 inputs, else float32
        In nats, summed over the labels. It is inf, with a gradient of 0, where a label has no probability.
    gradients : JointGradients
        As in `joint_transducer_loss_and_grad`, with None for the encoder. Those of the blank's row of the weight and of
        its bias are 0.

    Raises
    ------
    ValueError, TypeError, MemoryError
        As in `joint_transducer_loss`.

    Notes
    -----
    Allocates at most `memory_limit` bytes beyond the results and two rows of H numbers. Logits exist for a tile of
    labels at a time.

    The gradient of the weight is summed over the examples, so an autograd host passes its upstream gradient as
    `grad_loss`, in its backward pass, or adds these gradients to those of the transducer's loss.

    On a GPU this waits for the device once more, at its end, to look for losses that are not finite. Where there are
    any, the gradients are computed again without them.

    References
    ----------
    Variani et al. 2020, arXiv 2003.07705. Training: Meng et al. 2021, arXiv 2102.01380.
    """
    given = predictor, weight, bias, targets, target_lengths
    options = {"blank": blank, "activation": activation, "memory_limit": memory_limit, "dropout": dropout}
    problem = read_internal_language_model(*given, **options)
    pullback, device = Pullback(problem, predictor, predictor), problem.device
    work = paths.plan_along(problem, labels_alone=True)
    grad_loss = checks.read_grad_loss(grad_loss, len(work.order), work.dtype, device)  # (B,)
    with device.active():
        log_z = device.empty(len(work.order), np.float64)  # (B,)
        gradients = pullback.run_finite(work, log_z, grad_loss, lambda own: paths.along(log_z, own, labels_alone=True))
        none: Any = None  # there is no encoder, and all other doors have its gradient
        return per_target(work, log_z, predictor, negated=True), gradients._replace(encoder=none)
