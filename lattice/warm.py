"""Compile the kernels of the losses before the first step needs them."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np

from .annotations import Activation
from .ctc import ctc_loss_and_grad
from .device import arrays
from .inputs.checks import read_choice
from .internal_language_model import internal_language_model_loss_and_grad
from .joint import joint_transducer_loss_and_grad
from .kernels.activations import ACTIVATIONS
from .path import joint_path_loss_and_grad
from .report import joint_transducer_report
from .risk import minimum_bayes_risk
from .scores import scores_loss_and_grad
from .transducer import transducer_loss_and_grad


def warm_up(
    *dtypes: Any,
    device: Literal["cpu", "cuda"] = "cpu",
    activations: Sequence[Activation] = ("tanh", "relu", "identity"),
) -> None:
    """Compile the kernels of the losses and gradients, or load them from numba's cache on disk.

    The first call of a function compiles what the function needs. For one dtype this takes about 15 s in all on a
    two-core machine, and under a second once the results are cached (README, "First call"). Calling this at start-up
    moves that time out of the first training step. With "cuda" it warms up the current device. What only HAT, a delay
    penalty, arcs of several frames ("tdt", "multiblank") or, on a GPU, dropout or arguments of several dtypes take is
    compiled by the first call that has one. So are alignments and searches.

    Parameters
    ----------
    *dtypes : dtype-like
        float32, float64, float16 or bfloat16; float32 by default. Half precision is computed in float32.
    device : {"cpu", "cuda"}
    activations : sequence of str
        The activations of the joint whose kernels are compiled, by default ("tanh", "relu", "identity"). Each has
        kernels of its own.

    Raises
    ------
    ValueError
        An activation is not one of `joint_transducer_loss`.
    TypeError
        A dtype is not one of these, or `activations` is no sequence.
    RuntimeError
        `device="cuda"`, and what is missing for it.

    Notes
    -----
    Runs every loss and gradient on lattices of a few cells, and so allocates less than 100 kB of arrays. Compiled code
    stays in the process.
    """
    put = np.asarray if read_choice(device, "device", ("cpu", "cuda")) == "cpu" else arrays.cupy().asarray
    # All dtypes are judged before the first second of compiling.
    kinds = [_read_dtype(dtype, f"dtypes[{i}]") for i, dtype in enumerate(dtypes or (np.float32,))]
    if isinstance(activations, str) or not isinstance(activations, Iterable):
        raise TypeError(f"activations is {activations!r}, expected a sequence of names, as ('relu',)")
    read = [read_choice(name, f"activations[{i}]", tuple(ACTIVATIONS)) for i, name in enumerate(activations)]
    named: list[dict[str, Any]] = [{"activation": name} for name in read]
    # One example, mostly T = U = 1, with H = 1 and V = 2: the label of id 1, and every length.
    targets, one = np.ones((1, 1), np.int32), np.ones(1, np.int32)
    for dtype in kinds:
        logits = put(np.zeros((1, 1, 2, 2), dtype))
        transducer_loss_and_grad(logits, targets, one, one, out=logits)
        # Posteriors of arcs take no kernel that this call does not.
        scores_loss_and_grad(logits[..., 0], logits[..., 1], one, one)
        ctc_loss_and_grad(logits[0], targets, one, one, out=logits[0])
        rows, weight, bias = (put(np.zeros(shape, dtype)) for shape in ((1, 2, 1), (2, 1), 2))
        vocabulary = np.arange(2, dtype=np.int32)[None]  # (1, 2)
        # What gathers a vocabulary, adds up shared encoder rows, and on a GPU sums over pairs has kernels of its own.
        others: list[dict[str, Any]] = [{"encoder_index": np.zeros(1, np.int32)}, {"precision": "tf32x3"}]
        for options in (*named, {"vocabulary": vocabulary}, *others, {"topology": "constrained"}):
            joint_transducer_loss_and_grad(rows[:, :1], rows, weight, bias, targets, one, one, **options)
        # A report walks along the cells of any lattice with bounds, the loss along those of wide lattices.
        bounds = 0 * one[None], one[None]  # (1, 1) each
        for options in named:
            joint_transducer_report(rows[:, :1], rows, weight, bias, targets, one, one, bounds=bounds, **options)
        # Where cells are many beside the frames and labels, the group makes factors.
        wide, labels = put(np.zeros((1, 8, 1), dtype)), np.ones((1, 7), np.int32)
        joint_transducer_loss_and_grad(wide, wide, weight, bias, labels, one * 8, one * 7)
        joint_path_loss_and_grad(rows[:, :1], rows, weight, bias, targets, one[None] - 1, one, one)
        # Its rows are those of a path.
        internal_language_model_loss_and_grad(rows, weight, bias, targets, one)
        minimum_bayes_risk(put(np.zeros((1, 1), dtype)), one[None], one)


def _read_dtype(dtype, name: str) -> np.dtype:
    """One of the dtypes that the doors take, in the machine's byte order."""
    expected = f"expected one of {', '.join(arrays.REAL_NAMES)}"
    try:
        found = np.dtype(dtype)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} is {dtype!r}, {expected}") from error
    if found.name not in arrays.REAL_NAMES or not found.isnative:
        raise TypeError(f"{name} is {found}, {expected}")
    return found
