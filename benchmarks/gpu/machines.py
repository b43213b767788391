"""GPUs as a few rates, each with where it is from, and in its place what a record has measured."""

from typing import NamedTuple


class Machine(NamedTuple):
    """Rates of a GPU; `SOURCES` says where each is from.

    Attributes
    ----------
    multiprocessors, clock : int, float
        Clock in Hz.
    copy, cache : float
        Bytes/s from and to memory, and the L2 cache.
    cache_size : int
        Bytes.
    products : dict
        Precision -> FLOP/s of a product with hundreds of terms a sum.
    issue : float
        Instructions of a warp/s, at the share of the peak that such kernels reach.
    gap : float
        Seconds between two launches of which the second waits for the first.
    """

    multiprocessors: int
    clock: float
    copy: float
    cache: float
    cache_size: int
    products: dict[str, float]
    issue: float
    gap: float


H100 = Machine(
    multiprocessors=132,
    clock=1.75e9,
    copy=3.0e12,
    cache=5.0e12,
    cache_size=50 << 20,
    products={"float32": 50e12, "tf32": 380e12, "bfloat16": 600e12},
    issue=600e9,
    gap=2.5e-6,
)
MACHINES = {"H100": H100, "H200": H100._replace(copy=4.3e12, cache=5.5e12, cache_size=60 << 20)}
SOURCES = {
    "multiprocessors": "data sheets of the SXM boards",
    "clock": "sustained boost clock, assumed",
    "copy": "H100: measured by others, a read and a write each counted; H200: the same share of its data sheet",
    "cache": "measured by others, 5 to 5.5 TB/s",
    "cache_size": "data sheets",
    "products": "measured by others at 8192^3 (bfloat16: 798e12), less what sums of 512 terms and float32 output cost",
    "issue": "132 multiprocessors x 4 schedulers x 1.75 GHz x 0.65; the share is assumed",
    "gap": "assumed; `device` of `python -m benchmarks gpu` measures it",
}
"""None was measured here. `python -m benchmarks gpu --only device` measures copy, products and launches."""


def machine_of(record: dict, machine: Machine) -> Machine:
    """`machine` with the rates that the section `device` of a record has measured."""
    copy, products = found_in(record, "copy", "bandwidth"), found_in(record, "cublas", "rows")
    if copy:
        machine = machine._replace(copy=copy["bandwidth"])
    if products:
        names = {"float32": "float32", "tf32": "tf32", "bfloat16": "bfloat16 to float32"}
        rates = {name: products["rows"][row].values() for name, row in names.items()}
        machine = machine._replace(products={name: sum(rate) / len(rate) for name, rate in rates.items()})
    return machine


def found_in(node, name: str, *keys: str) -> dict | None:
    """What stands under a name anywhere in a record, with these keys; None where nothing does."""
    if not isinstance(node, dict):
        return None
    here = node.get(name)
    if isinstance(here, dict) and here.keys() >= set(keys):
        return here
    return next(filter(None, (found_in(value, name, *keys) for value in node.values())), None)
