"""Three parameters, each followed through the functions that are called with it.

`benchmarks.house` runs this file in a process of its own, inside the tree that is measured. Of that tree only `lattice`
and `samplers` are imported. Each door is called twice with a small float32 problem. The first call compiles what it
needs; `sys.setprofile` watches the second.

A function of the tree is called with the parameter if one of its arguments is or holds an array that shares memory with
the parameter. Arguments that are a tuple, a list, a dict, a dataclass or an object of a class of the tree (`self` too)
are looked into, one level deep. Labels are copied at the door. An array of whole numbers that holds each of the labels
therefore counts as the labels.

At such a call the walk is in the room of the caller, then in the room of the function, and in the room of the caller
again when the function returns. A room that follows itself is one stay. A loop is walked once: of the calls that one
running function makes from one place to one function, the first counts.

The walk does not see: what compiled sweeps call; arrays in closures or below the first level; other threads; and, for
encoder and logits, copies.
"""

import dataclasses
import inspect
import json
import sys
from pathlib import Path

import numpy as np

PACKAGES = ("lattice", "samplers")


class Entry:
    """A function that is running.

    Attributes
    ----------
    room : str or None
        The room of the function, or of its nearest caller in the tree.
    sites : set
        The calls that it made with the parameter so far.
    walked : bool
        The walk went into it.
    muted : bool
        It was called again from the same place: nothing that it calls is walked.
    """

    def __init__(self, room, sites, walked, muted):
        self.room, self.sites, self.walked, self.muted = room, sites, walked, muted


class Follower:
    """A profile function that notes where a parameter goes.

    Attributes
    ----------
    stays : list of str
        Rooms in the order of the walk.
    calls : list of (str, str)
        The rooms of caller and function, for each call from one room into another.
    """

    def __init__(self, tree: Path, parameter: np.ndarray):
        self.tree, self.parameter = tree, parameter
        self.stays: list[str] = []
        self.calls: list[tuple[str, str]] = []
        self.running = [Entry(None, set(), False, False)]

    def __call__(self, frame, event, argument):
        if event == "call":
            self.running.append(self.entered(frame))
        elif event == "return":
            left = self.running.pop()
            if left.walked:
                self.stay(self.running[-1].room)

    def entered(self, frame) -> Entry:
        caller, room = self.running[-1], self.room_of(frame.f_code.co_filename)
        if room is None:
            return Entry(caller.room, caller.sites, False, caller.muted)
        if caller.muted or not any(map(self.holds, arguments_of(frame))):
            return Entry(room, set(), False, caller.muted)
        site = frame.f_back.f_code, frame.f_back.f_lasti, frame.f_code
        if site in caller.sites:
            return Entry(room, set(), False, True)
        caller.sites.add(site)
        self.stay(caller.room)
        self.stay(room)
        if caller.room not in (None, room):
            self.calls.append((caller.room, room))
        return Entry(room, set(), True, False)

    def room_of(self, file: str) -> str | None:
        path = Path(file)
        if not path.is_relative_to(self.tree) or path.relative_to(self.tree).parts[0] not in PACKAGES:
            return None
        return ".".join(path.relative_to(self.tree).with_suffix("").parts).removesuffix(".__init__")

    def stay(self, room) -> None:
        if room is not None and self.stays[-1:] != [room]:
            self.stays.append(room)

    def holds(self, value) -> bool:
        return any(isinstance(part, np.ndarray) and self.carries(part) for part in (value, *parts_of(value)))

    def carries(self, array: np.ndarray) -> bool:
        if np.may_share_memory(array, self.parameter):
            return True
        return {array.dtype.kind, self.parameter.dtype.kind} <= {*"iu"} and bool(np.isin(self.parameter, array).all())


def arguments_of(frame):
    code = frame.f_code
    flags = bool(code.co_flags & inspect.CO_VARARGS) + bool(code.co_flags & inspect.CO_VARKEYWORDS)
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount + flags]
    return [frame.f_locals[name] for name in names if name in frame.f_locals]


def parts_of(value):
    """What lies one level below an argument."""
    if isinstance(value, (tuple, list)):
        return value
    if isinstance(value, dict):
        return value.values()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, field.name) for field in dataclasses.fields(value)]
    if type(value).__module__.partition(".")[0] in PACKAGES and hasattr(value, "__dict__"):
        return vars(value).values()
    return ()


def followed(tree: Path, call, parameter: np.ndarray) -> Follower:
    """Follow a parameter through one call."""
    follower = Follower(tree, parameter)
    sys.setprofile(follower)
    try:
        call()
    finally:
        sys.setprofile(None)
    return follower


def walks() -> dict:
    """By title, a call and the parameter that is followed in it."""
    import lattice
    import samplers

    random = np.random.default_rng(0)
    B, T, U, V, H = 2, 5, 3, 64, 4

    def values(*shape):
        return random.standard_normal(shape).astype(np.float32)

    # Numbers that no index or length of the problem has.
    targets = np.array([[41, 57, 46], [52, 60, 43]], np.int32)
    lengths = np.array([T, T - 1]), np.array([U, U])
    encoder, predictor, weight, bias = values(B, T, H), values(B, U + 1, H), values(V, H), values(V)
    logits = values(B, T, U + 1, V)
    joint, loss = lattice.joint_transducer_loss_and_grad, lattice.transducer_loss_and_grad
    return {
        "encoder through joint_transducer_loss_and_grad": (
            lambda: joint(encoder, predictor, weight, bias, targets, *lengths),
            encoder,
        ),
        "logits through transducer_loss_and_grad": (lambda: loss(logits, targets, *lengths), logits),
        "targets through samplers.sample_vocabulary": (
            lambda: samplers.sample_vocabulary(targets, lengths[1], 8, distribution=np.ones(V, np.float32), seed=1),
            targets,
        ),
    }


def main(tree: Path) -> None:
    import lattice

    if not Path(lattice.__file__).is_relative_to(tree):
        raise ImportError("the `lattice` that is imported is not that of the tree")
    found = {}
    for title, (call, parameter) in walks().items():
        call()
        follower = followed(tree, call, parameter)
        found[title] = {"stays": follower.stays, "calls": follower.calls}
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
