"""What every implementation makes of the edge cases of the field, each answer given by a process of its own."""

import importlib
import multiprocessing
import os
import pickle
import signal
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from . import record
from .edge_cases import CASES, NotExpressible, Question
from .implementations import FUNCTIONS, importable
from .peers import FOLDERS

VERDICTS = {
    "right": "loss and gradient agree with the float64 oracle as closely as the tests ask",
    "refused": "a Python exception; right where there is no answer, because an id or a length is out of range",
    "accepted": "an answer where there is none",
    "wrong": (
        "an answer that is off, by so much (relative l2 error of the losses or of the gradient, whichever is larger)"
    ),
    "NaN": "NaN in the loss or in the gradient where the truth has none, or infinity where it is finite",
    "crash": "the process died",
    "hang": "no answer within the time limit",
    "not expressible": "the implementation has no arguments that ask this; `-` in the table",
}
ROUNDING = 64.0
"""Units of rounding allowed, as tests/test_peers.py allows them: implementations keep alpha in float32."""
SECONDS = 1200.0
"""Time limit of a cell."""
PROCESSES = multiprocessing.get_context("forkserver")
# The server only imports: what it forks has run nothing before it is asked.
PROCESSES.set_forkserver_preload(["torch", __name__])


class Answer:
    """What came of one question: a verdict, or loss and gradients that are still to be judged."""

    def __init__(self, verdict=None, detail="", loss=None, gradients=()):
        self.verdict, self.detail, self.loss, self.gradients = verdict, detail, loss, gradients


def answer(function, question: Question) -> Answer:
    """Call an implementation in this process."""
    try:
        loss, gradients = function(question)
    except NotExpressible as error:
        return Answer("not expressible", str(error))
    except Exception as error:
        line = FOLDERS.sub("", (str(error).splitlines() or [""])[0])
        return Answer("refused", f"{type(error).__name__}: {line}")
    return Answer(loss=np.asarray(loss), gradients=gradients)


def answer_of_child(path: str, case: str, seconds: float = SECONDS) -> Answer:
    """Call the implementation `module:function` in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "answer"
        process = PROCESSES.Process(target=child, args=(path, case, file))
        process.start()
        process.join(seconds)
        if process.is_alive():
            process.kill()
            process.join()
            return Answer("hang", f"no answer in {seconds:g} s")
        if process.exitcode < 0:
            return Answer("crash", signal.Signals(-process.exitcode).name)
        if process.exitcode:
            return Answer("crash", f"exit status {process.exitcode}")
        return pickle.loads(file.read_bytes())


def child(path: str, case: str, file: Path) -> None:
    module, function = path.split(":")
    given = answer(getattr(importlib.import_module(module), function), CASES[case].make())
    file.write_bytes(pickle.dumps(given))


def true_answer(question: Question, fused: bool, dtype) -> tuple:
    """The oracle's loss and gradients, all of it computed in one dtype."""
    from tests import joint_oracle, oracle

    options = {"blank": question.blank, "grad_loss": question.upstream, "dtype": dtype}
    with np.errstate(all="ignore"):
        if fused:
            return joint_oracle.joint_loss_and_grad(*question.joint, *question.integers, **options)
        loss, gradient = oracle.batch_loss_and_grad(question.logits, *question.integers, **options)
        return loss, (gradient,)


def relative_error(ours, truth) -> float | None:
    """l2 distance over the truth's l2 norm, over the entries where the truth is a finite number.

    None where an answer is finite at other entries than the truth.
    """
    ours, truth = np.asarray(ours).astype(np.float64), np.asarray(truth)
    numbers = np.isfinite(truth)
    if not np.array_equal(np.isfinite(ours), numbers):
        return None
    return float(np.linalg.norm(ours[numbers] - truth[numbers]) / (np.linalg.norm(truth[numbers]) or 1))


def judged(given: Answer, question: Question, truth: tuple | None, naive: tuple | None) -> dict:
    """The verdict on an answer, whether it is what was asked for, and how far off it is."""
    if given.verdict:
        good = None if given.verdict == "not expressible" else given.verdict == "refused" and question.refuse
        return {"verdict": given.verdict, "good": good, "detail": given.detail}
    if question.refuse:
        return {"verdict": "accepted", "good": False, "detail": f"loss {np.array2string(given.loss, precision=4)}"}
    pairs = list(zip((given.loss, *given.gradients), (truth[0], *truth[1]), (naive[0], *naive[1]), strict=True))
    if given.loss.ndim == 0:
        pairs[0] = given.loss, truth[0].sum(), naive[0].sum()
    # The gradient of a poisoned example may be anything: what has to tell of the NaN is its loss.
    for place, (ours, true, near) in enumerate(pairs[1:], 1):
        poisoned = np.isnan(true).any(axis=tuple(range(1, true.ndim)), keepdims=True)
        pairs[place] = [np.where(poisoned, 0, array).astype(array.dtype) for array in (ours, true, near)]
    broken = any(
        (~np.isfinite(ours) & np.isfinite(true) | np.isnan(ours) & ~np.isnan(true)).any() for ours, true, _ in pairs
    )
    errors = [relative_error(ours, true) for ours, true, _ in pairs]
    verdict = "NaN" if broken else "right" if agrees(pairs, errors, question.limit) else "wrong"
    errors = {"loss_error": errors[0], "gradient_error": None if None in errors[1:] else max(errors[1:])}
    return {"verdict": verdict, "good": verdict == "right", "detail": "", **errors}


def agrees(pairs: list, errors: list[float], limit: float | None) -> bool:
    """The policy of the tests; a limit takes its place for the gradients."""
    from tests.compare import assert_close

    try:
        for ours, true, near in pairs[: 1 if limit else None]:
            assert_close(np.asarray(ours), true, near, k=ROUNDING)
    except AssertionError:
        return False
    return limit is None or max(errors[1:]) <= limit


def judge(case: str, fused: bool, give) -> dict:
    """Ask one implementation, `give(question)`, and judge what it says."""
    question = CASES[case].make()
    given, truth, naive = give(question), None, None
    if given.verdict is None and not question.refuse:
        truth, naive = (true_answer(question, fused, dtype) for dtype in (np.float64, naive_dtype(question)))
    return judged(given, question, truth, naive)


def naive_dtype(question: Question) -> type:
    return np.float64 if question.logits.dtype == np.float64 else np.float32


def cell_of(case: str, name: str) -> dict:
    return judge(case, name == "lattice, fused joint", lambda _: answer_of_child(FUNCTIONS[name], case))


def main(options) -> None:
    names, missing = importable()
    names = [name for name in names if name not in options.without]
    rows = {case: {} for case in CASES}
    # The last cases are the slow ones: they begin first.
    asked = [(case, name) for case in reversed(CASES) for name in reversed(names)]
    with ThreadPoolExecutor(2 * len(os.sched_getaffinity(0))) as pool:
        for (case, name), cell in zip(asked, pool.map(lambda pair: cell_of(*pair), asked)):
            rows[case][name] = cell
            print(f"{case:24}{name:24}{cell['verdict']:16}{'' if cell['good'] else cell}", flush=True)
    for name, reason in missing.items():
        print(f"not measured: {name}: {reason}")
    cases = {name: {"asked": case.asked, "limit": case.make().limit} for name, case in CASES.items()}
    rows = {case: {name: rows[case][name] for name in names} for case in CASES}
    record.write(
        options.json,
        {"benchmark": "behaviour", "verdicts": VERDICTS, "cases": cases, "rows": rows, "not_measured": missing},
    )
