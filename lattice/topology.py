"""Which arcs leave a cell of the lattice, and how a row of logits scores them."""

import contextlib
import operator
from dataclasses import KW_ONLY, dataclass
from typing import Literal

import numpy as np

from .inputs.checks import read_choice, read_number
from .kernels.arcs import Moves
from .kernels.steps import BLANK, LABEL

TWO_ARCS = ("rnnt", "monotonic", "constrained")
"""The topologies in which a cell has one blank arc and one label arc."""
TIMED = ("tdt", "multiblank")
"""The topologies whose arcs take numbers of frames that are given."""
MOST_PENALTY = 1e6
"""Nats a frame. Penalties up to here leave room for sums of them in float32."""
MOST_FRAMES = 1 << 24
"""Of an arc: a week of audio."""
MOST_STEPS = 30
"""Durations. A warp has a lane for each blank, and one for the label (heads_gradient.py)."""


@dataclass(frozen=True)
class Topology:
    """Which arcs leave a cell, and how a row of logits scores them.

    Doors take one as their `topology`, or a name alone. "tdt" and "multiblank" are taken by doors of losses and
    gradients from logits and from the joint, of posteriors, reports and best alignments, and by both searches. These
    refuse them: `transducer_exit_posterior`, `scores_loss_and_grad`, `joint_path_loss_and_grad`, `alignment_bounds`,
    `shift_frames`, `frames_to_ids` and `ids_to_frames`. Nor is the name "tdt" or "multiblank" alone enough, because it
    has no durations. The table holds for a cell (t, u) with its row of logits.

    =============  =====================  ===========================================  ==================
    name           blank arcs             label arcs                                   last arc
    =============  =====================  ===========================================  ==================
    "rnnt"         to (t + 1, u)          to (t, u + 1)                                a blank
    "monotonic"    to (t + 1, u)          to (t + 1, u + 1)                            either
    "constrained"  to (t + 1, u)          to (t + 1, u + 1), by the blank of (t, u+1)  either
    "tdt"          to (t + d, u), d > 0   to (t + d, u + 1) with t + d < T             a blank to T itself
    "multiblank"   to (t + 1, u), and     to (t, u + 1)                                a blank to T itself
                   big: to (t + d, u)
    =============  =====================  ===========================================  ==================

    With "tdt" (token and duration) d is one of the `durations`, and a row of logits has D = len(durations) entries more
    than there are ids. These are the last ones, and have a softmax of their own. An arc scores log p(token) +
    log p(duration) - `sigma`. Ids, `blank` and vocabularies speak of the tokens: blank=-1 is the last of those.

    With "multiblank" the big blank that takes durations[i] frames has the id blank - 1 - i, and each arc scores
    log p(id) - `sigma`.

    Parameters
    ----------
    name : {"rnnt", "monotonic", "constrained", "tdt", "multiblank"}
    durations : tuple of int
        Frames that arcs take, ascending: with "tdt" from 0 on, and with "multiblank", for its big blanks, from 2 on.
        The longest is at least 1. They are at most 30, of at most 2**24 frames each.
    sigma : float
        Nats taken off the score of every arc, 0 to 1e6. Only with "tdt" and "multiblank". Losses, best alignments and
        searches all take it off. It is for training: decode and measure with 0.
    hat : bool
        The blank's probability is a sigmoid of its logit, and a softmax over all other ids shares out the rest
        (hybrid autoregressive transducer). Not with "tdt" and "multiblank".
    delay_penalty : float
        `delay_penalty * ((T_b - 1) / 2 - t)` nats are added to the score of a label arc in frame t, of either sign. A
        positive penalty favours early labels. A loss is then no negative log-probability, and may be below 0. Losses,
        posteriors, best alignments and their scores are those of the penalised scores. So leave the penalty out to
        align, or to measure when a model emits. Searches do not look at it.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, the value and the bound.

    References
    ----------
    "rnnt": Graves 2012, arXiv 1211.3711. "monotonic": Sak et al. 2017. "constrained" and `delay_penalty`: k2 and Kang
    et al. 2022, arXiv 2211.00490. `hat`: Variani et al. 2020, arXiv 2003.07705. "tdt": Xu et al. 2023, arXiv
    2304.06795. "multiblank": Xu et al. 2022, arXiv 2211.03541.

    Examples
    --------
    >>> lattice.Topology("monotonic", hat=True, delay_penalty=0.003)  # doctest: +SKIP
    """

    name: Literal["rnnt", "monotonic", "constrained", "tdt", "multiblank"] = "rnnt"
    _: KW_ONLY
    durations: tuple[int, ...] = ()
    sigma: float = 0.0
    hat: bool = False
    delay_penalty: float = 0.0

    def __post_init__(self):
        read_choice(self.name, "name", TWO_ARCS + TIMED)
        timed = self.name in TIMED
        if not isinstance(self.hat, (bool, np.bool_)):
            raise TypeError(f"hat is {self.hat!r} ({type(self.hat).__name__}), expected True or False")
        if self.hat and timed:
            raise ValueError(
                f"hat is True with {self.name!r}, expected False: it is for {', '.join(map(repr, TWO_ARCS))}"
            )
        sigma = read_number(self.sigma, "sigma", 0.0, high=MOST_PENALTY, bound=f"a number from 0 to {MOST_PENALTY:g}")
        if sigma and not timed:
            raise ValueError(f"sigma is {sigma} with {self.name!r}, expected 0: its arcs have no durations")
        penalty, bound = self.delay_penalty, f"a number from {-MOST_PENALTY:g} to {MOST_PENALTY:g}"
        penalty = read_number(penalty, "delay_penalty", -MOST_PENALTY, high=MOST_PENALTY, bound=bound)
        # Equal topologies compare equal, whatever kinds of numbers they were made of.
        for name, value in (
            ("name", str(self.name)),
            ("durations", _read_durations(self.durations, self.name)),
            ("sigma", sigma),
            ("hat", bool(self.hat)),
            ("delay_penalty", penalty),
        ):
            object.__setattr__(self, name, value)

    @property
    def moves(self) -> Moves:
        # Where no label arc stays on its frame, a cell with u > t is on no alignment, whatever the durations are.
        monotonic = self.durations[0] > 0 if self.name == "tdt" else self.name in ("monotonic", "constrained")
        return Moves(monotonic, self.name == "constrained")

    @property
    def steps(self) -> np.ndarray:
        """(2, D) int32: frames that arcs take, ascending, and who takes them: `BLANK`, `LABEL` or both (steps.py).

        D is 0 for topologies with two arcs a cell.
        """
        if self.name == "tdt":
            return np.array([self.durations, [LABEL | BLANK * (d > 0) for d in self.durations]], np.int32)
        if self.name == "multiblank":
            frames = 0, 1, *self.durations
            return np.array([frames, [LABEL] + [BLANK] * (len(frames) - 1)], np.int32)
        return np.zeros((2, 0), np.int32)

    @property
    def tail(self) -> int:
        """How many entries of a row of logits are durations, which are the last ones."""
        return len(self.durations) if self.name == "tdt" else 0


def _read_durations(durations, name: str) -> tuple[int, ...]:
    """Frames that arcs take, ascending."""
    try:
        given = tuple(durations)
    except TypeError:
        raise TypeError(f"durations is {durations!r}, expected a tuple of integers") from None
    found = tuple(_read_duration(duration, i) for i, duration in enumerate(given))
    if name not in TIMED:
        if found:
            raise ValueError(
                f"durations is {found} with {name!r}, expected none: they are for {' and '.join(map(repr, TIMED))}"
            )
        return found
    if not found:
        raise ValueError(f"durations is empty with {name!r}, expected the frames that its arcs may take")
    for i, duration in enumerate(found):
        least = (found[i - 1] + 1) if i else (2 if name == "multiblank" else 0)
        if duration < least:
            raise ValueError(f"durations[{i}] is {duration}, expected at least {least}: durations ascend")
        if i >= MOST_STEPS:
            raise ValueError(f"durations has {len(found)} entries, expected at most {MOST_STEPS}")
        if duration > MOST_FRAMES:
            raise ValueError(f"durations[{i}] is {duration}, expected at most {MOST_FRAMES}")
    # With 0 alone no blank leads to the next frame.
    if found[-1] < 1:
        raise ValueError(f"durations[{len(found) - 1}] is {found[-1]}, expected at least 1 for the longest duration")
    return found


def _read_duration(duration, i: int) -> int:
    """An integer, or anything that says which one it is."""
    # bool is a subclass of int, and True is no number here.
    if not isinstance(duration, (bool, np.bool_)):
        with contextlib.suppress(TypeError):
            return operator.index(duration)
    raise TypeError(f"durations[{i}] is {duration!r} ({type(duration).__name__}), expected an integer")


def read_name(topology, names: tuple[str, ...]) -> str:
    """One of `names`, from a name or a `Topology`."""
    if not isinstance(topology, Topology):
        return read_choice(topology, "topology", names, "or a Topology")
    if topology.name not in names:
        raise ValueError(f"topology.name is {topology.name!r}, expected one of {', '.join(map(repr, names))}")
    return topology.name


def read_topology(topology, names: tuple[str, ...] = TWO_ARCS) -> Topology:
    """A topology of one of the `names`, from a name or a `Topology`."""
    if isinstance(topology, str) and topology in TIMED and topology in names:
        raise ValueError(f"topology is {topology!r}, expected a Topology: the name alone has no durations")
    name = read_name(topology, names)
    return topology if isinstance(topology, Topology) else Topology(name)


def count_tokens(topology: Topology, size: int, what: str) -> int:
    """How many of the `size` entries of a row of logits are ids; `what` is the argument that has them."""
    if topology.tail and size < topology.tail + 2:
        expected = f"{topology.tail + 2} in place of {size}: two ids, and {topology.tail} durations behind them"
        raise ValueError(f"{what}, expected at least {expected}")
    if topology.name == "multiblank" and size <= (big := len(topology.durations)):
        raise ValueError(
            f"{what}, expected at least {big + 1} in place of {size}: the blank, and {big} big blanks below it"
        )
    return size - topology.tail


def read_big_blanks(topology: Topology, blank: int) -> np.ndarray:
    """(K,) int64: the ids of the big blanks of "multiblank", next to the blank; (0,) with other topologies."""
    count = len(topology.durations) if topology.name == "multiblank" else 0
    if blank < count:
        raise ValueError(
            f"blank is id {blank}, expected at least {count}: the big blanks have the {count} ids below it"
        )
    return blank - 1 - np.arange(count)
