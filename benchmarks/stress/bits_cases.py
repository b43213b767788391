"""Random calls of every door for `bits`: sizes, dtypes, topologies, activations, restrictions, options.

Of the library only the public names are used, so that the same calls can be made of two trees whose modules differ.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

import lattice
import samplers
from tests.alignment_problems import random_alignments
from tests.ctc_problems import ctc_problem
from tests.language_model_problems import language_model_problem
from tests.path_problems import path_problem
from tests.problems import DTYPES, joint_problem, logits_problem, random_targets

ACTIVATIONS = ("tanh", "relu", "identity")
SIZES = ((3, 6, 4, 8), (5, 20, 8, 50), (6, 60, 20, 200), (6, 60, 20, 200))
"""Most of B, T, U and V in small, middle and large problems; half of them are large."""
WIDE = {"batch": 2, "frames": 60, "labels": 20, "vocab": 1000}
"""Logits of so many bytes that half precision is widened in several parts."""
FASTEMIT = (0.0, 0.0, 0.01, 2.0)
FLOORS = (None, 0.0, 2.0**-40, 2.0**-10, 0.05, 0.5)
"""Of the posterior; None is the default."""
SHARES = {
    "joint_transducer_loss_and_grad": 76,
    "joint_transducer_loss_vjp": 45,
    "joint_path_loss_and_grad": 45,
    "transducer_loss_and_grad": 55,
    "joint_transducer_loss": 30,
    "joint_transducer_report": 30,
    "joint_transducer_alignment": 25,
    "ctc_loss_and_grad": 25,
    "transducer_loss": 20,
    "transducer_alignment": 20,
    "greedy_decode": 18,
    "beam_decode": 22,
    "ctc_loss": 12,
    "ctc_alignment": 12,
    "sample_vocabulary": 12,
    "ctc_posterior": 10,
    "minimum_bayes_risk": 8,
    "allowed_vocabulary": 5,
    "mixture": 4,
    "alignment_bounds": 6,
    "ids_to_frames": 6,
    "frames_to_ids": 3,
    "shift_frames": 5,
    "unigram": 2,
    "uniform": 1,
    "log_uniform": 1,
    "warm_up": 2,
}
"""Door -> how many of 500 problems are calls of it."""
LATER = (
    {"transducer_posteriors": 10, "joint_transducer_posteriors": 10, "scores_loss_and_grad": 10},
    {"internal_language_model_loss_and_grad": 10},
    {"transducer_exit_posterior": 10},
)
"""Doors that came after the first record. Their problems stand behind the 500 of that, which are drawn as they were."""

RECORDED = ("rnnt", "monotonic")
"""Topologies that are drawn. With another one all draws would differ from those of earlier records."""


def in_turn(shares: dict[str, int]) -> list[str]:
    """The doors of some problems: each door's lie evenly among the others."""
    return [
        name for _, name in sorted(((i + 0.5) / share, name) for name, share in shares.items() for i in range(share))
    ]


TURNS = [name for shares in (SHARES, *LATER) for name in in_turn(shares)]
"""The doors of problems 0, 1, ..."""


class Case(NamedTuple):
    """A call `door(**arguments)`."""

    name: str
    door: Callable
    arguments: dict


class Predict:
    """A predictor whose vectors depend on all labels so far, with a state of two arrays."""

    def __init__(self, width: int, dtype):
        self.table = np.random.default_rng(width).standard_normal((97, width)).astype(dtype)  # (histories, H)

    def __call__(self, labels, state):
        history = np.zeros(len(labels), np.int64) if state is None else state[0]
        history = (history * 31 + labels + 1) % len(self.table)
        return self.table[history], (history, np.zeros((len(labels), 2), np.float32))


def pick(rng, values):
    return values[rng.integers(len(values))]


def named(problem, names: str) -> dict:
    return dict(zip(names.split(), problem.args, strict=True)) | problem.options


def chance(rng, probability: float) -> bool:
    return rng.random() < probability


def sizes(rng) -> dict:
    B, T, U, V = pick(rng, SIZES)
    vocab = int(rng.integers(2, V + 1))
    return {
        "seed": int(rng.integers(2**32)),
        "batch": int(rng.integers(1, B + 1)),
        "vocab": vocab,
        "frames": T if chance(rng, 0.3) else int(rng.integers(1, T + 1)),
        "labels": 0 if chance(rng, 0.08) else int(rng.integers(0, U + 1)),
        "blank": pick(rng, (0, 0, -1, vocab // 2, vocab - 1, -vocab)),
        "dtype": pick(rng, DTYPES),
        "integer": pick(rng, (np.int32, np.int64)),
        "slack": (int(rng.integers(3)), int(rng.integers(3))),
    }


def lattice_sizes(rng) -> dict:
    return {**sizes(rng), "topology": pick(rng, RECORDED), "bounded": chance(rng, 0.3)}


def closed(rng, given: dict) -> dict:
    """`given`; some that have bounds lose every cell of a frame, and so every alignment."""
    if given.get("bounds") is not None and chance(rng, 0.1):
        given["bounds"][0][0, 0] = given["bounds"][1][0, 0] + 1
    return given


def with_upstream(rng, given: dict) -> dict:
    if chance(rng, 0.4):
        return given | {"grad_loss": None}
    count = len(given["targets" if "targets" in given else "target_lengths"])
    grad_loss = rng.standard_normal(count).astype(pick(rng, (np.float32, np.float64)))
    if chance(rng, 0.3):
        grad_loss[0] = 0
    return given | {"grad_loss": grad_loss}


def logits_case(rng, name: str) -> dict:
    options = {"spread": pick(rng, (0.1, 1.5, 6.0)), "sharpness": pick(rng, (0.0, 8.0, 20.0))}
    options |= lattice_sizes(rng)
    if chance(rng, 0.1):
        options |= WIDE | {"dtype": pick(rng, DTYPES[2:])}
    problem = logits_problem(**options)
    given = named(problem, "logits targets logit_lengths target_lengths")
    if chance(rng, 0.4):
        given["logits"] = problem.pack(problem.logits)
    if name.endswith("grad"):
        given = with_upstream(rng, given) | {"fastemit_lambda": pick(rng, FASTEMIT)}
    return closed(rng, given)


def exits_case(rng, name: str) -> dict:
    given = logits_case(rng, name)
    if given["bounds"] is None:
        shape = len(given["target_lengths"]), int(np.max(given["logit_lengths"]))
        given["bounds"] = np.zeros(shape, int), np.full(shape, int(rng.integers(4)))
    return given


def ctc_arguments(rng) -> dict:
    options = sizes(rng) | {"spread": pick(rng, (0.1, 1.5, 6.0)), "sharpness": pick(rng, (0.0, 8.0))}
    if chance(rng, 0.15):
        options["lengths"] = [4, 2, 7], [5, 0, 3]  # the first target has more labels than frames
    return named(ctc_problem(**options), "logits targets logit_lengths target_lengths")


def joint_options(rng) -> dict:
    options = {
        **lattice_sizes(rng),
        "width": int(rng.integers(2, 33)),
        "activation": pick(rng, ACTIVATIONS),
        "use_bias": chance(rng, 0.7),
        "vocabulary": pick(rng, (None, None, "full", "lengths", "endings")),
        "sharpness": pick(rng, (0.0, 6.0, 10.0, 15.0)),
    }
    if options["dtype"].itemsize == 2 and chance(rng, 0.4):
        options["weight_dtype"] = np.float32
    return options


def joint_case(rng, name: str) -> dict:
    options = joint_options(rng)
    options["hypotheses"] = pick(rng, (None, None, None, options["batch"] + 2))
    given = named(joint_problem(**options), "encoder predictor weight bias targets encoder_lengths target_lengths")
    given = closed(rng, given)
    if name.endswith("alignment"):
        return given
    floor = pick(rng, FLOORS)
    if floor is not None:
        given["posterior_floor"] = floor
    if name.endswith(("grad", "vjp", "report")):
        given = with_upstream(rng, given) | {"fastemit_lambda": pick(rng, FASTEMIT)}
        given["overwrite"] = given["encoder_index"] is None and chance(rng, 0.4)
    return given


def path_case(rng, name: str) -> dict:
    problem = path_problem(**joint_options(rng))
    given = named(problem, "encoder predictor weight bias targets frames encoder_lengths target_lengths")
    options = {
        "label_smoothing": pick(rng, (0.0, 0.1, 0.9)),
        "focal": pick(rng, (0.0, 0.5, 2.0)),
        "label_scale": pick(rng, (0.0, 0.3, 2.0)),
    }
    return with_upstream(rng, given) | options


def language_model_case(rng, name: str) -> dict:
    options = joint_options(rng) | {"vocabulary": None, "bounded": False}
    problem = language_model_problem(**options)
    return with_upstream(rng, named(problem, "predictor weight bias targets target_lengths"))


def ctc_case(rng, name: str) -> dict:
    given = ctc_arguments(rng)
    if name.endswith("alignment"):
        given["keep"] = pick(rng, ("first", "last"))
    return with_upstream(rng, given) if name.endswith("grad") else given


def decode_case(rng, name: str) -> dict:
    problem = joint_problem(**joint_options(rng) | {"vocabulary": None, "bounded": False})
    (B, _, H), V, kind = problem.encoder.shape, len(problem.weight), problem.encoder.dtype
    if kind.itemsize == 2 and chance(rng, 0.3):
        kind = np.dtype(np.float32)
    allowed = None
    if chance(rng, 0.5):
        count = int(rng.integers(1, V + 1))
        allowed = np.stack([rng.permutation(V)[:count] for _ in range(B)])  # (B, K) ids
        allowed[0, rng.integers(1, count + 1) :] = -1
    beam = int(rng.integers(1, 7))
    options = {"beam": beam, "nbest": int(rng.integers(1, beam + 1))} if name == "beam_decode" else {}
    return {
        "encoder": problem.encoder,
        "encoder_lengths": problem.encoder_lengths,
        "predict": Predict(H, kind),
        "weight": problem.weight,
        "bias": problem.bias,
        "blank": problem.blank,
        "activation": problem.activation,
        "topology": problem.topology,
        "allowed": allowed,
        "max_labels_per_frame": int(rng.integers(0, 4)),
        **options,
    }


def risk_case(rng, name: str) -> dict:
    B, N = rng.integers(1, 6), rng.integers(1, 20)
    scores = (pick(rng, (1, 30)) * rng.standard_normal((B, N))).astype(pick(rng, DTYPES))
    return {
        "scores": scores,
        "risks": rng.integers(0, 9, (B, N)).astype(pick(rng, (np.int64, np.float32))),
        "lengths": rng.integers(1, N + 1, B),
        "scale": pick(rng, (0.1, 1.0, 3.0)),
    }


def posterior_case(rng, name: str) -> dict:
    given = ctc_arguments(rng)
    return {"logits": given["logits"], "lengths": given["logit_lengths"]}


def distribution(rng, B: int, V: int):
    p = rng.dirichlet(np.full(V, pick(rng, (0.05, 1.0))), B)
    p[rng.random(p.shape) < pick(rng, (0.0, 0.2))] = 0
    p = p.astype(pick(rng, DTYPES))
    return p[0] if chance(rng, 0.3) else p


def vocabulary_case(rng, name: str) -> dict:
    B, V = int(rng.integers(1, 6)), int(rng.integers(4, 201))
    given = {"blank": pick(rng, (0, -1, V // 2))}
    if name == "allowed_vocabulary":
        return given | {"probabilities": distribution(rng, B, V), "size": int(rng.integers(1, V))}
    lengths = rng.integers(0, min(V // 2, 20) + 1, B)
    targets = random_targets(rng, lengths, int(lengths.max()) + 1, V, given["blank"])
    return given | {
        "targets": targets,
        "target_lengths": lengths,
        "size": int(rng.integers(V // 2 + 1, V + 1)),
        "distribution": distribution(rng, B, V),
        "strategy": pick(rng, ("example", "batch")),
        "seed": int(rng.integers(2**63)),
        "row_offset": int(pick(rng, (0, 1000))),
    }


def probabilities_case(rng, name: str) -> dict:
    """The distributions that need no logits."""
    V = int(rng.integers(1, 201))
    if name == "unigram":
        return {"counts": rng.integers(0, 9, V) + pick(rng, (0.0, 0.5, 1))}
    if name == "mixture":
        parts = [distribution(rng, 3, V) for _ in range(int(rng.integers(1, 4)))]
        return {"distributions": parts, "weights": rng.random(len(parts)).tolist()}
    return {"vocab_size": V}


def frames_case(rng, name: str) -> dict:
    """The doors between alignments, ids and bounds."""
    topology = pick(rng, RECORDED) if name in ("alignment_bounds", "shift_frames") else "monotonic"
    drawn = {
        "seed": int(rng.integers(2**32)),
        "batch": int(rng.integers(1, 6)),
        "frames": int(rng.integers(1, 61)),
        "labels": int(rng.integers(0, 21)),
        "integer": pick(rng, (np.int32, np.int64)),
    }
    problem = random_alignments(topology=topology, vocab=1000, **drawn)
    given = {"frames": problem.frames, "target_lengths": problem.target_lengths, "topology": topology}
    if name == "alignment_bounds":
        return given | {"encoder_lengths": problem.lengths, "left": int(rng.integers(5)), "right": int(rng.integers(5))}
    given |= {"lengths": problem.lengths}
    if name == "shift_frames":
        return given | {"shift": int(rng.integers(-5, 6))}
    given |= {"targets": problem.targets, "blank": problem.blank}
    if name == "ids_to_frames":
        keep = pick(rng, ("first", "last"))
        given |= {"ids": problem.strings(keep), "topology": "ctc", "keep": keep}
        del given["frames"]
    return given


def scores_case(rng, name: str) -> dict:
    options = {"spread": pick(rng, (0.1, 1.5, 100.0)), **lattice_sizes(rng)}
    problem = logits_problem(**options)
    return with_upstream(
        rng,
        {
            "blank_scores": pick(rng, (1, -1)) * problem.logits[..., 0],
            "label_scores": problem.logits[..., 1],
            "frame_lengths": problem.logit_lengths,
            "target_lengths": problem.target_lengths,
            "topology": problem.topology,
            "bounds": problem.bounds,
        },
    )


def warm_case(rng, name: str) -> dict:
    return {"dtypes": pick(rng, (("float32",), (np.float64, "float16"))), "device": "cpu"}


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
    **dict.fromkeys(("greedy_decode", "beam_decode"), decode_case),
    **dict.fromkeys(("sample_vocabulary", "allowed_vocabulary"), vocabulary_case),
    **dict.fromkeys(("uniform", "log_uniform", "unigram", "mixture"), probabilities_case),
    **dict.fromkeys(("alignment_bounds", "ids_to_frames", "frames_to_ids", "shift_frames"), frames_case),
    "joint_path_loss_and_grad": path_case,
    "internal_language_model_loss_and_grad": language_model_case,
    "minimum_bayes_risk": risk_case,
    "ctc_posterior": posterior_case,
    "warm_up": warm_case,
}
"""Door -> what draws its arguments."""


def call_vjp(grad_loss=None, **given):
    """Loss and gradients of a `vjp` closure, and those of a second call of it where there may be one."""
    loss, vjp = lattice.joint_transducer_loss_vjp(**given)
    first = vjp(grad_loss)
    return (loss, first) if given["overwrite"] else (loss, first, vjp())


def call_warm_up(dtypes, device):
    return lattice.warm_up(*dtypes, device=device)


def make(rng, name: str) -> Case:
    """A valid call of a door."""
    doors = {"joint_transducer_loss_vjp": call_vjp, "warm_up": call_warm_up}
    door = doors.get(name) or getattr(lattice if hasattr(lattice, name) else samplers, name)
    return Case(name, door, MAKERS[name](rng, name))
