"""What `bits` does to a valid call: special values, layouts, wrong arguments, where gradients go, small workspaces."""

import re

import numpy as np

from .bits_cases import TURNS, Case, chance, make, pick

REALS = ("logits", "encoder", "predictor", "weight", "bias", "scores")
LIMITED = (
    "joint_transducer_loss",
    "joint_transducer_loss_and_grad",
    "joint_transducer_loss_vjp",
    "joint_transducer_report",
    "joint_transducer_alignment",
    "joint_path_loss_and_grad",
)
ROOM = (1, 1, 1.01, 1.1, 1.5, 3, 10)
"""Workspaces as multiples of the smallest that works: one example or several in a group, 16 cells or many in a tile."""
REFUSED = {
    "blank": 10**6,
    "topology": "tree",
    "activation": "cube",
    "posterior_floor": -1.0,
    "fastemit_lambda": -0.5,
    "overwrite": 2,
    "label_smoothing": 1.0,
    "label_scale": -1.0,
    "focal": -1.0,
    "keep": "middle",
    "beam": 0,
    "max_labels_per_frame": -1,
    "nbest": 100,
    "scale": float("nan"),
    "size": 10**6,
    "strategy": "all",
    "seed": -1,
    "left": -1,
    "shift": 0.5,
    "vocab_size": 0,
    "weights": [0.0, 0.0],
    "dtypes": ("int8",),
}
"""Option -> a value that no door takes."""
DTYPES = (np.bool_, np.int8, np.int64, np.uint16, np.float32, np.float64, np.complex64, ">f4")


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


def unaligned(x):
    view = np.empty(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
    view[...] = x
    return view


LAYOUTS = {
    "fortran": np.asfortranarray,
    "strided": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    "reversed": lambda x: x[::-1].copy()[::-1],
    "read-only": read_only,
    "unaligned": unaligned,
}
SHAPES = (lambda x: x[:-1], lambda x: x[None], lambda x: x.reshape(-1), lambda x: x.T, lambda x: np.concatenate([x, x]))


def with_special_values(rng, given: dict, real: list[str]) -> str:
    """Up to three infinities or NaN where numbers are."""
    name, value = pick(rng, real), pick(rng, (-np.inf, -np.inf, np.nan, np.inf))
    given[name] = given[name].copy()
    places = np.flatnonzero(np.isfinite(given[name].astype(np.float64)))
    given[name].reshape(-1)[rng.choice(places, min(3, len(places)), replace=False)] = value
    return f"{value} in {name}"


def with_layout(rng, given: dict, real: list[str]) -> str:
    name, layout = pick(rng, real), pick(rng, list(LAYOUTS))
    given[name] = LAYOUTS[layout](given[name])
    return f"{layout} {name}"


def without_examples(given: dict) -> str:
    for name, x in given.items():
        if isinstance(x, np.ndarray) and name not in ("weight", "bias", "counts"):
            given[name] = x[:0]
    return "no examples"


def other_values(rng, x):
    x = x.copy()
    value = pick(rng, (-1, 0, 100) if x.dtype.kind in "iu" else (np.nan, -1.0))
    x.reshape(-1)[rng.integers(max(1, x.size), size=min(1, x.size))] = value
    return x


def with_wrong_argument(rng, given: dict) -> str:
    """One argument changed to what a door is likely to refuse."""
    arrays = [name for name, x in given.items() if isinstance(x, np.ndarray)]
    options = sorted(name for name in given.keys() & REFUSED.keys() if name not in arrays)
    if options and (not arrays or chance(rng, 0.4)):
        name = pick(rng, options)
        given[name] = REFUSED[name]
        return f"bad {name}"
    name, kind = pick(rng, arrays), pick(rng, ("dtype", "shape", "values"))
    if kind == "dtype":
        with np.errstate(all="ignore"):
            given[name] = given[name].astype(pick(rng, DTYPES))
    else:
        given[name] = pick(rng, SHAPES)(given[name]) if kind == "shape" else other_values(rng, given[name])
    return f"bad {kind} of {name}"


def with_out(rng, given: dict) -> str:
    """Where the gradient goes: nowhere, over the logits, or into an array that holds other numbers."""
    kind = pick(rng, ("", "in place", "out"))
    if kind:
        given["out"] = given["logits"] if kind == "in place" else np.full_like(given["logits"], 7)
    return kind


def with_limit(rng, case: Case) -> str:
    """A workspace of the default size, of 1 MiB, too small, or by the smallest that works, which a refusal names."""
    kind, given = rng.random(), case.arguments
    if kind < 0.25:
        return ""
    if kind < 0.35:
        given["memory_limit"] = 1 << 20 if kind < 0.32 else 1000
        return f"limit {given['memory_limit']}"
    try:
        case.door(**given | {"memory_limit": 1})
    except (ValueError, TypeError) as error:
        if least := re.match(r"memory_limit is 1 bytes, expected at least (\d+)", str(error)):
            room = pick(rng, ROOM)
            given["memory_limit"] = int(int(least[1]) * room)
            return f"limit {room} of least"
    return ""


def draw(seed: int, number: int) -> tuple[Case, list[str]]:
    """Problem `number` of a seed, and what is particular about it; drawn for a single call, which may write to it."""
    rng, name = np.random.default_rng([seed, number]), TURNS[number % len(TURNS)]
    case, marks = make(rng, name), []
    given = case.arguments
    real = [part for part in REALS if isinstance(given.get(part), np.ndarray)]
    if real and chance(rng, 0.12):
        marks.append(with_special_values(rng, given, real))
    if real and chance(rng, 0.12):
        marks.append(with_layout(rng, given, real))
    if chance(rng, 0.02):
        marks.append(without_examples(given))
    if chance(rng, 0.13):
        marks.append(with_wrong_argument(rng, given))
    if name in ("transducer_loss_and_grad", "ctc_loss_and_grad"):
        marks.append(with_out(rng, given))
    if name in LIMITED:
        marks.append(with_limit(rng, case))
    return case, [mark for mark in marks if mark]
