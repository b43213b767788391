"""What each launch does: rows, elements, bytes that have to be moved, steps that wait for one another.

Bytes are what a kernel must read and write once, whatever the sizes of its arguments: encoder, predictor and output
layer are read again and again from caches, and count as nothing beside a tile.
"""

import inspect
from types import SimpleNamespace
from typing import NamedTuple

from lattice.kernels.activations import ACTIVATIONS
from lattice.kernels.launch import SCAN_THREADS
from lattice.kernels.step_sums import lanes_for
from lattice.topology import TIMED


class Done(NamedTuple):
    """What a launch does.

    Attributes
    ----------
    rows, elements : int
        What a warp takes, as a rule, and the numbers that its loop goes over.
    bytes : int
        Moved at the least.
    chain : int
        Steps of which each waits for the one before.
    variant : str
        What the record of `benchmarks.gpu.instructions` calls this form of the kernel, behind the kernel's name.
    """

    rows: int
    elements: int
    bytes: int
    chain: int = 0
    variant: str = ""


class Step(NamedTuple):
    """One thing that a call does.

    Attributes
    ----------
    kind : str
        "kernel", "product", "CuPy" (a kernel of its own), "wait" (of the host for the device) or "frames" (the host
        numbers them).
    name : str
        As `stages.Watch` has it.
    count : str
        A kernel and its variant, as in the record of `benchmarks.gpu.instructions`: "emit, bias".
    rows, elements, bytes, chain : int
        As in `Done`.
    shape : tuple of int
        (M, K, N) of a product.
    """

    kind: str
    name: str
    count: str = ""
    rows: int = 0
    elements: int = 0
    bytes: int = 0
    chain: int = 0
    shape: tuple[int, ...] = ()


def counted_as(name: str) -> str:
    """A kernel in the words of the record of instructions: "hidden tanh" for `hidden_tanh_cuda`."""
    name = name.removesuffix("_cuda")
    for activation in ACTIVATIONS:
        name = name.replace(f"_{activation}", f" {activation}")
    return name


def real_bytes(*arrays) -> int:
    return sum(array.dtype.itemsize for array in arrays)


def half(array) -> str:
    return " bfloat16" if array.dtype.itemsize == 2 else ""


def steps_of(a) -> int:
    """Steps that a kernel scores or reads, 0 where every arc takes one frame."""
    return len(getattr(a, "step_score", getattr(a, "step_posterior", ())))


def tail_of(a) -> int:
    """Entries of a row that are durations. The loop over a row leaves them out; `costs.Count.row` has them."""
    return getattr(a, "tail", 0)


def emit(a):
    n, V = len(a.row), a.logits.shape[1]
    moved = n * (V * real_bytes(a.logits) + real_bytes(a.row, a.label_id) + (4 + steps_of(a)) * real_bytes(a.rest))
    return Done(n, n * (V - tail_of(a)), moved, variant=", bias" * (len(a.bias) > 0) + a.heads + half(a.logits))


def gradient(a):
    n, V = len(a.row), a.source.shape[1]
    # The second reading of a row comes from a cache.
    moved = n * (V * real_bytes(a.source, a.target) + real_bytes(a.row, a.label_id, a.owner) + 16)
    moved += n * steps_of(a) * real_bytes(a.rest)
    variant = " anew" * bool(a.anew) + ", bias" * (len(a.bias) > 0) + a.heads
    rounded = ", to bfloat16" if a.source.dtype != a.target.dtype else half(a.target)
    return Done(n, n * (V - tail_of(a)), moved, variant=variant + rounded)


def factored(a) -> str:
    """Of a kernel that makes hidden vectors: of exponentials of the rows, which were made before.

    Rows that have a far entry hold factors too, and a GPU makes their cells of the inputs.
    """
    return ", factors" * (len(getattr(a, "factors", ())) > 0 and not a.far)


def drawn(a) -> str:
    """With dropout or without, of which each is compiled apart."""
    return ", dropout" * (len(getattr(a, "dropout", ())) > 0)


def hidden(a):
    n, H = a.hidden.shape
    return Done(n, n * H, n * (H * real_bytes(a.hidden) + 16), variant=factored(a) + drawn(a) + half(a.encoder))


def bound(a):
    n, H, D = len(a.label_id), a.weight.shape[1], steps_of(a)
    # Two rows of the layer at a time, each time with hidden vectors made anew: the pair {blank, label}, then the steps.
    times = n * (-(-D // 2) + (not D or tail_of(a) > 0))
    return Done(
        times, times * H, n * (20 + (4 + D) * real_bytes(a.rest)), variant=factored(a) + drawn(a) + half(a.encoder)
    )


def transpose(a):
    n, H = a.hidden.shape
    return Done(n, n * H, n * H * real_bytes(a.hidden, a.grad_hidden), variant=drawn(a) + half(a.hidden))


def ways_of(a) -> int:
    """Blocks that a sweep has of an example: one for alpha, and one for beta where it is made, too."""
    return a.blocks[1] if len(a.blocks) > 1 else 1


def sums(a):
    cells, ways = len(a.blank_score), ways_of(a)
    # The kernel that reads upper bounds is the one of scaled numbers. An earlier one had no brackets.
    variant = ", scaled" if hasattr(a, "bracket") else ""
    return Done(cells, ways * cells, ways * cells * (2 * real_bytes(a.blank_score) + 8), a.longest, variant)


def step_sums(a):
    cells, ways, D = len(a.blank_score), ways_of(a), steps_of(a)
    # A lane takes a step of a cell. A block without room for a wave takes it in rounds, one after the other.
    lanes = lanes_for(D)
    rounds = -(-a.widest * lanes // a.threads)
    moved = ways * cells * ((2 + D) * real_bytes(a.blank_score) + 8)
    return Done(cells, ways * cells * lanes, moved, rounds * a.longest)


def posteriors(a):
    cells, D = len(a.alpha), steps_of(a)
    return Done(len(a.example), cells * max(1, D), cells * ((4 + 2 * D) * real_bytes(a.blank_score) + 16))


def open_bounds(a):
    return Done(len(a.example), len(a.rest), 4 * len(a.rest) * real_bytes(a.rest))


def per_example(arrays: int):
    """A kernel in which one block takes an example, and goes over `arrays` numbers of each of its cells."""

    def of(a):
        examples, cells = len(a.starts) - 1, len(a.rest)
        return Done(examples, cells, arrays * cells * real_bytes(a.rest), -(-cells // examples // SCAN_THREADS))

    return of


def listing(a):
    return Done(len(a.example), len(a.rest), len(a.rest) * real_bytes(a.rest))


def add_up(a):
    return Done(len(a.counts), len(a.counts), 16 * len(a.counts), -(-len(a.counts) // SCAN_THREADS))


def locate(a):
    return Done(len(a.row), len(a.row), 32 * len(a.row))


def factors(a):
    n, H = len(a.factors), a.rows.shape[1]
    return Done(n, n * H, n * H * real_bytes(a.rows, a.factors))


def split(a):
    return Done(len(a.values), a.values.size, 3 * a.values.size * real_bytes(a.values))


def rows_moved(a):
    return Done(len(a.target), a.target.size, 2 * a.target.size * real_bytes(a.target))


def unpacked(a):
    rows, H = len(a.examples) * a.depth, a.source.shape[1]
    return Done(rows, rows * H, rows * H * real_bytes(a.source, a.target))


def cleared(a):
    # How many rows are cleared depends on lengths, and padding is written at the rate of a copy.
    return Done(len(a.visited), 0, a.visited.nbytes)


def everything(a):
    """Every array once."""
    arrays = [value for value in vars(a).values() if getattr(value, "ndim", 0)]
    largest = max(arrays, key=lambda array: array.size)
    return Done(len(largest), largest.size, sum(array.nbytes for array in arrays))


WORK = {
    "emit": emit,
    "gradient": gradient,
    "hidden": hidden,
    "bound": bound,
    "bound_steps": bound,
    "to_frames": transpose,
    "to_slots": transpose,
    "sums": sums,
    "step_sums": step_sums,
    "posteriors": posteriors,
    "step_posteriors": posteriors,
    "open": open_bounds,
    "select": per_example(12),
    "leave_out": per_example(4),
    "count": listing,
    "list": listing,
    "add_up": add_up,
    "locate": locate,
    "gather": rows_moved,
    "scatter": rows_moved,
    "share": rows_moved,
    "unpack": unpacked,
    "factors": factors,
    "split": split,
    "cast": everything,
    "measure": everything,
    "ceiling": everything,
    "mark": everything,
    "clear_rows": cleared,
}
"""Kernel, without its activation and topology -> function of the arguments of a launch by name, of its `blocks`
and `threads`, of `longest` and `widest`, the largest T + U and U + 1 of the examples in work, of `far`, whether most
cells have far entries, and of `heads`, the topology that the kernel is named for."""


class Unknown(LookupError):
    """A kernel that the tables of the model do not have."""


def step_of(kernel, arguments: tuple, **more) -> Step:
    """What a launch does, by the table. `more` is what `WORK` lists beside the arguments, without `heads`.

    Raises
    ------
    Unknown
        Naming the kernel, and the table that lacks it.
    """
    function = getattr(kernel, "py_func", kernel)
    known = counted_as(function.__name__)
    heads = next((name for name in TIMED if known.endswith(f"_{name}")), "")
    known = known.removesuffix(f"_{heads}")
    work = WORK.get(known.split()[0])
    if work is None:
        raise Unknown(f"{function.__name__} is not in WORK of benchmarks/gpu/work.py: say there what a launch does")
    named = dict(zip(inspect.signature(function).parameters, arguments))
    done = work(SimpleNamespace(**named, **more, heads=f", {heads}" if heads else ""))
    return Step("kernel", function.__name__, known + done.variant, *(int(number) for number in done[:4]))
