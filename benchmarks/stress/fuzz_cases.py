"""Valid small calls of every door."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

import lattice
import samplers
from tests.alignment_problems import random_alignments
from tests.ctc_problems import ctc_problem
from tests.language_model_problems import language_model_problem
from tests.path_problems import path_problem
from tests.problems import ACTIVATIONS, DTYPES, NARROW, TOPOLOGIES, joint_problem, logits_problem

from .fuzz_hostile import HostileError

MOST_CALLS = 300


@dataclass(frozen=True)
class Case:
    """A call `door(**arguments)`."""

    name: str
    door: Callable
    arguments: dict


def pick(rng, values):
    return values[rng.integers(len(values))]


def named(problem, names: str) -> dict:
    return dict(zip(names.split(), problem.args, strict=True)) | problem.options


def upstream(rng, count: int, dtype):
    return None if rng.random() < 0.5 else rng.standard_normal(count).astype(dtype)


def sizes(rng) -> dict:
    return {
        "seed": int(rng.integers(2**32)),
        "batch": int(rng.integers(1, 4)),
        "frames": int(rng.integers(1, 7)),
        "labels": int(rng.integers(0, 5)),
        "vocab": int(rng.integers(2, 9)),
        "blank": int(rng.integers(-2, 2)),
        "integer": pick(rng, (np.int32, np.int64)),
    }


def lattice_sizes(rng) -> dict:
    return {
        **sizes(rng),
        "topology": pick(rng, TOPOLOGIES),
        "dtype": pick(rng, DTYPES),
        "sharpness": pick(rng, (0.0, 8.0)),
        "bounded": rng.random() < 0.3,
        "slack": (int(rng.integers(3)), int(rng.integers(3))),
    }


def dropout(rng):
    return None if rng.random() < 0.6 else (float(rng.random()), int(rng.integers(2**63)))


def logits_arguments(rng) -> dict:
    problem = logits_problem(**lattice_sizes(rng))
    given = named(problem, "logits targets logit_lengths target_lengths")
    if rng.random() < 0.3:
        given["logits"] = problem.pack(problem.logits)
    elif problem.bounds is not None and rng.random() < 0.5:
        given |= {"logits": problem.band(problem.logits, spare=int(rng.integers(2))), "banded": True}
    return given


def joint_arguments(rng, builder=joint_problem) -> dict:
    options = {
        **lattice_sizes(rng),
        "width": int(rng.integers(2, 6)),
        "activation": pick(rng, ACTIVATIONS),
        "use_bias": rng.random() < 0.7,
        "vocabulary": pick(rng, (None, "full", "lengths", "endings")),
        "dropout": dropout(rng),
    }
    if builder is path_problem:
        return named(builder(**options), "encoder predictor weight bias targets frames encoder_lengths target_lengths")
    options["hypotheses"] = pick(rng, (None, None, 4))
    if rng.random() < 0.2 and options["dtype"] != np.float64:
        options["dtypes"] = tuple(pick(rng, NARROW) for _ in range(4))
    given = named(builder(**options), "encoder predictor weight bias targets encoder_lengths target_lengths")
    return {
        **given,
        "memory_limit": int(pick(rng, (1 << 15, 1 << 20, 1 << 28))),
        "posterior_floor": pick(rng, (0.0, 2.0**-24)),
        "precision": pick(rng, ("default", "tf32x3")),
    }


def ctc_arguments(rng) -> dict:
    problem = ctc_problem(**sizes(rng), dtype=pick(rng, DTYPES), sharpness=pick(rng, (0.0, 8.0)))
    return named(problem, "logits targets logit_lengths target_lengths")


def with_gradient(rng, given: dict, rows: str) -> dict:
    """`given` with an upstream gradient and, from logits, with `out`."""
    logits = given.get("logits")
    options = {"grad_loss": upstream(rng, len(given[rows]), np.float32)}
    if logits is not None and rng.random() < 0.4:
        options["out"] = logits if rng.random() < 0.5 else np.empty_like(logits)
    return given | options


def frames_arguments(rng):
    given = sizes(rng) | {"blank": int(rng.integers(2)), "topology": pick(rng, TOPOLOGIES)}
    return random_alignments(**given)


class Predict:
    """A predictor with a state of two arrays.

    It ends a search that never would: a search that may emit labels in a frame for ever.
    """

    def __init__(self, width: int, dtype):
        self.table = np.random.default_rng(width).standard_normal((97, width)).astype(dtype)
        self.left = MOST_CALLS

    def __call__(self, labels, state):
        self.left -= 1
        if not self.left:
            raise HostileError
        history = np.zeros(len(labels), np.int64) if state is None else state[0]
        history = (history * 31 + labels + 1) % 97
        return self.table[history], (history, np.zeros((len(labels), 2), np.float32))


def decode_arguments(rng) -> dict:
    given = joint_arguments(rng)
    encoder = np.where(np.isnan(given["encoder"]), 0, given["encoder"]).astype(given["encoder"].dtype)
    B, T, H = encoder.shape
    V = len(given["weight"])
    lengths = rng.integers(1, T + 1, B)
    allowed = None if rng.random() < 0.6 else np.stack([rng.permutation(V)[: max(1, V // 2)] for _ in range(B)])
    return {
        "encoder": encoder,
        "encoder_lengths": lengths,
        "predict": Predict(H, encoder.dtype),
        "weight": given["weight"],
        "bias": given["bias"],
        "blank": given["blank"],
        "activation": given["activation"],
        "topology": given["topology"],
        "allowed": allowed,
        "max_labels_per_frame": int(rng.integers(0, 4)),
    }


def probabilities(rng, count, size):
    p = rng.dirichlet(np.ones(size), count).astype(pick(rng, DTYPES[:3]))
    return p[0] if rng.random() < 0.4 else p


def logits_case(rng, name):
    given = logits_arguments(rng)
    if name.endswith("grad"):
        given = with_gradient(rng, given, "logit_lengths") | {"fastemit_lambda": pick(rng, (0.0, 0.5))}
    return given


def exits_case(rng, name):
    given = logits_arguments(rng)
    if given["bounds"] is None:
        shape = len(given["target_lengths"]), int(np.max(given["logit_lengths"]))
        given["bounds"] = np.zeros(shape, int), np.full(shape, int(rng.integers(4)))
    return given


def joint_case(rng, name):
    given = joint_arguments(rng)
    if name.endswith(("grad", "report")):
        given = with_gradient(rng, given, "predictor")
    if name.endswith(("grad", "vjp", "report")):
        given["fastemit_lambda"] = pick(rng, (0.0, 0.5))
        given["overwrite"] = bool(given["encoder_index"] is None and rng.random() < 0.3)
    if name.endswith("alignment"):
        del given["posterior_floor"], given["precision"]
        given.pop("dropout", None)
    return given


def path_case(rng, name):
    options = {
        "label_smoothing": pick(rng, (0.0, 0.1)),
        "label_scale": pick(rng, (0.0, 2.0)),
        "focal": pick(rng, (0.0, 1.0)),
    }
    return with_gradient(rng, joint_arguments(rng, path_problem) | options, "predictor")


def language_model_case(rng, name):
    options = {"width": int(rng.integers(2, 6)), "activation": pick(rng, ACTIVATIONS), "use_bias": rng.random() < 0.7}
    problem = language_model_problem(**lattice_sizes(rng) | options | {"bounded": False, "dropout": dropout(rng)})
    given = named(problem, "predictor weight bias targets target_lengths")
    return with_gradient(rng, given | {"memory_limit": int(pick(rng, (1 << 15, 1 << 20, 1 << 28)))}, "predictor")


def ctc_case(rng, name):
    given = ctc_arguments(rng)
    return with_gradient(rng, given, "logits") if name.endswith("grad") else given


def integers_case(rng, name):
    problem = frames_arguments(rng)
    labelled = {"targets": problem.targets, "lengths": problem.lengths, "target_lengths": problem.target_lengths}
    if name == "alignment_bounds":
        return {
            "frames": problem.frames,
            "target_lengths": problem.target_lengths,
            "encoder_lengths": problem.lengths,
            "left": int(rng.integers(3)),
            "right": int(rng.integers(3)),
            "topology": problem.topology,
        }
    if name == "shift_frames":
        return {
            "frames": problem.frames,
            "lengths": problem.lengths,
            "target_lengths": problem.target_lengths,
            "shift": int(rng.integers(-2, 3)),
            "topology": problem.topology,
        }
    problem = random_alignments(int(rng.integers(2**32)), topology="monotonic", labels=3, frames=12)
    labelled = {
        "targets": problem.targets,
        "lengths": problem.lengths,
        "target_lengths": problem.target_lengths,
        "blank": 0,
    }
    if name == "frames_to_ids":
        return {"frames": problem.frames, **labelled}
    return {"ids": lattice.frames_to_ids(*problem.labelled), **labelled, "topology": "monotonic", "keep": "last"}


def risk_case(rng, name):
    B, N = rng.integers(1, 4, 2)
    scores = (4 * rng.standard_normal((B, N))).astype(pick(rng, DTYPES))
    return {"scores": scores, "risks": rng.integers(0, 9, (B, N)), "lengths": rng.integers(1, N + 1, B), "scale": 0.5}


def decode_case(rng, name):
    return decode_arguments(rng) | ({"beam": 3, "nbest": 2} if name.startswith("beam") else {})


def sampler_case(rng, name):
    B, V = int(rng.integers(1, 4)), int(rng.integers(4, 12))
    if name in ("uniform", "log_uniform"):
        return {"vocab_size": V}
    if name == "unigram":
        return {"counts": rng.integers(0, 9, V) + 1}
    if name == "ctc_posterior":
        given = ctc_arguments(rng)
        return {"logits": given["logits"], "lengths": given["logit_lengths"]}
    if name == "mixture":
        return {"distributions": [probabilities(rng, B, V), probabilities(rng, B, V)], "weights": [0.75, 0.25]}
    if name == "allowed_vocabulary":
        return {"probabilities": probabilities(rng, B, V), "size": int(rng.integers(1, V)), "blank": 0}
    return {
        "targets": rng.integers(1, 4, (B, 2)),
        "target_lengths": rng.integers(0, 3, B),
        "size": 4,
        "distribution": probabilities(rng, B, V),
        "strategy": pick(rng, ("example", "batch")),
        "blank": 0,
        "seed": int(rng.integers(2**32)),
        "row_offset": 0,
    }


def warm_case(rng, name):
    return {"dtypes": (pick(rng, ("float32", np.float64)),), "device": "cpu"}


def scores_case(rng, name):
    problem = logits_problem(**lattice_sizes(rng))
    entries = problem.logits[..., 0], problem.logits[..., 1]
    lengths = {"frame_lengths": problem.logit_lengths, "target_lengths": problem.target_lengths}
    return {
        "blank_scores": pick(rng, (1, -1)) * entries[0],
        "label_scores": 10 * entries[1],
        **lengths,
        "topology": problem.topology,
        "bounds": problem.bounds,
        "grad_loss": upstream(rng, len(problem.targets), np.float32),
    }


MAKERS = {
    **dict.fromkeys(
        ("transducer_loss", "transducer_loss_and_grad", "transducer_alignment", "transducer_posteriors"), logits_case
    ),
    "transducer_exit_posterior": exits_case,
    "scores_loss_and_grad": scores_case,
    **dict.fromkeys(
        (
            "joint_transducer_loss",
            "joint_transducer_loss_and_grad",
            "joint_transducer_loss_vjp",
            "joint_transducer_report",
            "joint_transducer_alignment",
            "joint_transducer_posteriors",
        ),
        joint_case,
    ),
    **dict.fromkeys(("ctc_loss", "ctc_loss_and_grad", "ctc_alignment"), ctc_case),
    **dict.fromkeys(("alignment_bounds", "ids_to_frames", "frames_to_ids", "shift_frames"), integers_case),
    "joint_path_loss_and_grad": path_case,
    "internal_language_model_loss_and_grad": language_model_case,
    "minimum_bayes_risk": risk_case,
    "warm_up": warm_case,
    **dict.fromkeys(("greedy_decode", "beam_decode"), decode_case),
    **dict.fromkeys([name for name in samplers.__all__ if name != "SampledVocabulary"], sampler_case),
}
"""Door -> what makes a valid call of it."""


def call_vjp(grad_loss=None, **given):
    """The gradient of a `vjp` closure, its argument among those that are mutated."""
    loss, vjp = lattice.joint_transducer_loss_vjp(**given)
    return loss, *vjp(grad_loss)


def call_warm_up(dtypes, device):
    return lattice.warm_up(*(dtypes if isinstance(dtypes, (tuple, list)) else (dtypes,)), device=device)


def make(rng, name: str) -> Case:
    """A valid call of a door."""
    given = MAKERS[name](rng, name)
    if name == "joint_transducer_loss_vjp":
        given["grad_loss"] = upstream(rng, len(given["predictor"]), np.float32)
        return Case(name, call_vjp, given)
    door = call_warm_up if name == "warm_up" else getattr(lattice if hasattr(lattice, name) else samplers, name)
    return Case(name, door, given)
