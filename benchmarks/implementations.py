"""Every implementation through its own public functions, with the arguments just as a `Question` holds them.

Each function takes a question and returns its loss, (B,) or the sum (), and a tuple of gradients: of the logits, or of
encoder, predictor, weight and bias. Real arrays keep their dtype and their strides. Ids and lengths take the integer
type that the implementation asks for, unless the question fixes one.
"""

import functools

import numpy as np

import lattice
from lattice.device import arrays

from . import peers
from .edge_cases import NotExpressible


def from_logits(question):
    loss, gradient = lattice.transducer_loss_and_grad(
        question.logits, *integers(question, np.int64), blank=question.blank, grad_loss=question.upstream
    )
    return loss, (gradient,)


def fused_joint(question):
    if question.joint is None:
        raise NotExpressible("no joint network has such logits")
    loss, gradients = lattice.joint_transducer_loss_and_grad(
        *question.joint, *integers(question, np.int64), blank=question.blank, grad_loss=question.upstream
    )
    return loss, tuple(gradients)


def on_a_gpu(question):
    import cupy

    upstream = None if question.upstream is None else cupy.asarray(question.upstream)
    given = [cupy.asarray(array) for array in (question.logits, *integers(question, np.int64))]
    loss, gradient = lattice.transducer_loss_and_grad(*given, blank=question.blank, grad_loss=upstream)
    return cupy.asnumpy(loss), (cupy.asnumpy(gradient),)


def integers(question, liked: type) -> list[np.ndarray]:
    """Targets and lengths; only their type changes, so that strides stay as they are asked."""
    dtype = np.dtype(question.integer or liked)
    return [array if array.dtype == dtype else array.astype(dtype) for array in question.integers]


def tensor(array: np.ndarray):
    """Of the same memory and strides; torch has no NumPy bfloat16."""
    import torch

    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def numpy_of(tensor) -> np.ndarray:
    import torch

    if tensor.dtype == torch.bfloat16:
        import ml_dtypes

        return tensor.detach().float().numpy().astype(ml_dtypes.bfloat16)
    return tensor.detach().numpy()


def differentiated(loss_of, question):
    """Loss and, by autograd, the gradient of the logits."""
    import torch

    logits = tensor(question.logits).requires_grad_()
    loss = loss_of(logits)
    ones = torch.ones_like(loss)
    upstream = ones if question.upstream is None else torch.from_numpy(question.upstream).to(loss.dtype)
    (gradient,) = torch.autograd.grad(loss, logits, upstream)
    return numpy_of(loss), (numpy_of(gradient),)


def naive(question):
    return differentiated(peers.naive_loss(*map(tensor, integers(question, np.int64)), question.blank), question)


def torchaudio(question):
    from torchaudio.functional import rnnt_loss

    given = [tensor(array) for array in integers(question, np.int32)]
    return differentiated(lambda logits: rnnt_loss(logits, *given, blank=question.blank, reduction="none"), question)


def warprnnt_numba(question):
    from warprnnt_numba.rnnt_loss.rnnt_pytorch import rnnt_loss

    given = [tensor(array) for array in integers(question, np.int32)]
    return differentiated(lambda logits: rnnt_loss(logits, *given, blank=question.blank, reduction="none"), question)


def optimized_transducer(question):
    """Its logits are packed, which is left to its caller, and it has no loss per example: the sum is asked for."""
    import optimized_transducer
    import torch

    targets, frame_lengths, target_lengths = (tensor(array) for array in integers(question, np.int32))
    real = torch.from_numpy(question.real)
    packed = tensor(question.logits)[real]
    if not question.logits.flags.c_contiguous:
        packed = packed.T.contiguous().T
    packed.requires_grad_()
    loss = optimized_transducer.transducer_loss(
        packed, targets, frame_lengths, target_lengths, question.blank, reduction="sum", from_log_softmax=False
    )
    upstream = None
    if question.upstream is not None:
        if np.ptp(question.upstream):
            raise NotExpressible("it has the sum and the mean of the losses, and no upstream gradient for each")
        upstream = torch.full_like(loss, question.upstream[0])
    (gradient,) = torch.autograd.grad(loss, packed, upstream)
    padded = torch.zeros(question.logits.shape, dtype=gradient.dtype)
    padded[real] = gradient
    return numpy_of(loss), (numpy_of(padded),)


def k2_losses(module: str, question):
    """fast_rnnt and k2 share these functions."""
    import importlib

    import torch

    k2 = importlib.import_module(module)
    targets, frame_lengths, target_lengths = (tensor(array) for array in integers(question, np.int64))
    zero = torch.zeros_like(frame_lengths)
    boundary = torch.stack([zero, zero, target_lengths, frame_lengths], 1)
    return differentiated(
        lambda logits: k2.rnnt_loss(logits, targets, question.blank, boundary=boundary, reduction="none"), question
    )


fast_rnnt = functools.partial(k2_losses, "fast_rnnt")
k2 = functools.partial(k2_losses, "k2")

OURS = {"lattice": "from_logits", "lattice, fused joint": "fused_joint", "lattice on a GPU": "on_a_gpu"}
PEERS = {
    "torch, naive": "naive",
    "torchaudio": "torchaudio",
    "optimized_transducer": "optimized_transducer",
    "fast_rnnt": "fast_rnnt",
    "k2": "k2",
    "warprnnt_numba": "warprnnt_numba",
}
FUNCTIONS = {name: f"{__name__}:{function}" for name, function in (OURS | PEERS).items()}
"""Name -> module:function. The pruned losses are no answer to these questions: they compute something else."""


def importable() -> tuple[list[str], dict[str, str]]:
    """Names of those that can be run here, and why the others cannot."""
    reasons = {name: reason for name, reason in peers.missing().items() if name in PEERS}
    try:
        arrays.cupy()
    except RuntimeError as error:
        reasons["lattice on a GPU"] = peers.FOLDERS.sub("", str(error).splitlines()[0])
    return [name for name in FUNCTIONS if name not in reasons], reasons
