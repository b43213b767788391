"""What every call has to keep to: results as documented, or a ValueError or TypeError that names an argument."""

import contextlib
import re
import sys
import threading
import traceback
import warnings

import numpy as np

from .fuzz_cases import Case
from .fuzz_hostile import Wrapped
from .fuzz_mutations import SAME, VALUES

ROUNDING = 1e-4


def computed(dtype):
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def real_of(given: dict, name: str):
    """The shape and dtype of a real argument, or None where NumPy does not see them."""
    x = given[name]
    return (x.shape, x.dtype) if isinstance(x, np.ndarray) else None


def layouts_of(case: Case, given: dict):
    """(shape, dtype) of each result, None where it depends on values."""
    first = next((name for name in ("logits", "encoder", "blank_scores", "predictor") if name in given), "scores")
    like = real_of(given, first) if first in given else None
    lengths = next((given[name] for name in ("target_lengths", "lengths") if name in given), None)
    if like is None or not isinstance(lengths, np.ndarray):
        return None
    batch_shape, kind = lengths.shape, computed(like[1])
    loss, name = (batch_shape, kind), case.name
    if name in ("transducer_loss", "ctc_loss", "joint_transducer_loss"):
        return [loss]
    if name == "transducer_exit_posterior":
        return [(batch_shape, np.dtype(np.float64))]
    if name in ("transducer_loss_and_grad", "ctc_loss_and_grad"):
        return [loss, like]
    if name.startswith("joint") and name.endswith(("grad", "vjp")):
        return [loss, *(real_of(given, part) for part in ("encoder", "predictor", "weight", "bias"))]
    if name.endswith("alignment") and isinstance(given["targets"], np.ndarray):
        return [(given["targets"].shape, np.dtype(np.int32)), loss]
    if name == "scores_loss_and_grad":
        return [loss, like, like]
    if name.startswith("internal"):
        # There is no encoder, and so no gradient of it.
        return [loss, None, *(real_of(given, part) for part in ("predictor", "weight", "bias"))]
    if name == "joint_transducer_posteriors" and isinstance(given["predictor"], np.ndarray):
        return [loss, *[((*batch_shape, like[0][1], given["predictor"].shape[1]), kind)] * 2]
    if name == "transducer_posteriors" and len(like[0]) == 4:
        return [loss, *[(like[0][:3], kind)] * 2]
    if name == "minimum_bayes_risk":
        return [loss, (like[0], kind)]
    return [((like[0][0], like[0][2]), kind)] if name == "ctc_posterior" else None


def flat(result) -> list:
    """The arrays of a result, one behind the other; gradients of a bias that is None are None."""
    if isinstance(result, tuple):
        return [part for entry in result for part in flat(entry)]
    return [result.array if isinstance(result, Wrapped) else result]


def of_wrong_layout(case: Case, given: dict, result) -> list[str]:
    found, expected = flat(result), layouts_of(case, given)
    if expected is None:
        return []
    if len(found) != len(expected):
        return [f"{len(found)} results, expected {len(expected)}"]
    return [
        f"result {i} is {array.dtype}{array.shape}, expected {layout[1]}{layout[0]}"
        for i, (array, layout) in enumerate(zip(found, expected))
        if layout is not None and (array.shape, array.dtype) != layout
    ]


def of_wrong_value(case: Case, kind: int, result) -> list[str]:
    wrong = []
    arrays = [x for x in flat(result) if isinstance(x, np.ndarray) and x.dtype.kind in "fV"]
    # Given scores may be of any sign.
    if (
        "loss" in case.name
        and case.name != "scores_loss_and_grad"
        and arrays
        and isinstance(result, (np.ndarray, tuple))
    ):
        wrong += [f"loss is {x}" for x in np.ravel(arrays[0]) if x < -ROUNDING]
    if kind != VALUES:
        wrong += ["NaN in a result" for x in arrays if np.isnan(x.astype(np.float64)).any()]
    return wrong


def memory_of(given: dict) -> dict:
    """The bits of every array among the arguments."""
    arrays = {name: (value if isinstance(value, (tuple, list)) else (value,)) for name, value in given.items()}
    plain = (
        (name, x)
        for name, parts in arrays.items()
        for x in parts
        if isinstance(x, np.ndarray) and not x.dtype.hasobject
    )
    return {(name, id(x)): (x, x.tobytes()) for name, x in plain}


def written(given: dict) -> list:
    """The arrays that a call was told to write to."""
    overwrite = given.get("overwrite")
    names = ["out"] + ["encoder", "predictor"] * bool(isinstance(overwrite, (bool, np.bool_)) and overwrite)
    arrays = [x.array if isinstance(x, Wrapped) else x for x in (given.get(name) for name in names)]
    return [x for x in arrays if isinstance(x, np.ndarray)]


def changed_inputs(before: dict, given: dict, raced: set) -> list[str]:
    allowed = written(given)
    changed = [(name, x) for (name, _), (x, bits) in before.items() if name not in raced and x.tobytes() != bits]
    return [
        f"{name} was written to" for name, x in changed if not any(np.may_share_memory(x, other) for other in allowed)
    ]


def wrong_error(case: Case, given: dict, error: BaseException) -> list[str]:
    """Why an error is not one that a caller can act on."""
    text = str(error)
    if "hostile object" in text:
        return []
    if not isinstance(error, (ValueError, TypeError)) or isinstance(error, np.exceptions.DTypePromotionError):
        return ["".join(traceback.format_exception(error)[-3:])]
    if not any(re.search(rf"\b{name}\b", text) for name in given):
        return [
            f"no argument is named: {type(error).__name__}: {text}\n"
            + "".join(traceback.format_tb(error.__traceback__)[-2:])
        ]
    return []


@contextlib.contextmanager
def beside(workers):
    """Threads that write to arguments while a call runs."""
    threads = [threading.Thread(target=write, daemon=True) for write, _ in workers]
    interval = sys.getswitchinterval()
    if threads:
        sys.setswitchinterval(1e-5)
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for _, stop in workers:
            stop.set()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(interval)


def equal_bits(one, other) -> bool:
    return all(
        (a is None and b is None) or np.asarray(a).tobytes() == np.asarray(b).tobytes()
        for a, b in zip(flat(one), flat(other), strict=True)
    )


def outcome(case: Case, given: dict, kind: int, workers, raced: set, expected=None):
    """("result" or the error's name, what was wrong): call the door and judge what came of it."""
    before = memory_of(given)
    try:
        with warnings.catch_warnings(), beside(workers):
            warnings.simplefilter("error")
            result = case.door(**given)
    except Exception as error:
        return type(error).__name__, [*wrong_error(case, given, error), *changed_inputs(before, given, raced)]
    wrong = changed_inputs(before, given, raced)
    if case.name not in ("warm_up",):
        wrong += of_wrong_layout(case, given, result) + of_wrong_value(case, kind, result)
        if kind == SAME and expected is not None and not equal_bits(result, expected):
            wrong.append("other bits than with plain arrays")
    return "result", wrong
