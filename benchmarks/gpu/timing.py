"""What a measurement on a GPU rests on: events around calls that take turns, peaks of the memory pools."""

import gc
import statistics
import sys
import time

from lattice.device import arrays

from .. import peers, record

ROUNDS = 7


def timed(call) -> tuple[float, float]:
    """Seconds from an idle device to the end of the work, and seconds until the call returned."""
    cuda = arrays.cupy().cuda
    begin, end = cuda.Event(), cuda.Event()
    cuda.get_current_stream().synchronize()
    begin.record()
    start = time.perf_counter()
    call()
    host = time.perf_counter() - start
    end.record()
    end.synchronize()
    return cuda.get_elapsed_time(begin, end) / 1e3, host


def peak_of(call) -> int:
    """Bytes that a call takes from the pools of CuPy and torch, at its highest, its result included."""

    class Count(arrays.cupy().cuda.MemoryHook):
        name = "peak"
        live = high = 0

        def malloc_postprocess(self, **event):
            if event["mem_ptr"]:
                self.live += event["mem_size"]
                self.high = max(self.high, self.live)

        def free_postprocess(self, **event):
            self.live -= event["mem_size"]

    torch = sys.modules.get("torch")
    if torch is not None:
        torch.cuda.init()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    with Count() as count:
        # Held until the hook is gone: what the call gives back belongs to its peak.
        result = call()
    del result
    return count.high + (0 if torch is None else torch.cuda.max_memory_allocated() - before)


def text_of(error: BaseException) -> str:
    """Class and first line of an error, without the folders of one machine."""
    return peers.FOLDERS.sub("", f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}")


class Lazily:
    """A call that is made ready when it is first wanted, so that a failure to do so is its own."""

    def __init__(self, build, *arguments):
        self.build, self.arguments, self.call = build, arguments, None

    def prepare(self):
        if self.call is None:
            self.call = self.build(*self.arguments)

    def __call__(self):
        return self.call()


def measure(
    calls: dict, floor: str, *, rounds: int = ROUNDS, prepare: dict | None = None, optional=()
) -> dict[str, dict]:
    """Rows of a table: each call against the floor of the same round, after one round that is not counted.

    Parameters
    ----------
    calls : dict
        Name -> function without arguments.
    floor : str
        The call that the others are divided by.
    prepare : dict, optional
        Name -> what has to be done before a call without being timed.
    optional : container of str
        Calls that may fail without failing the whole.

    Returns
    -------
    dict
        Name -> seconds, ratio, ratio_min, ratio_max, rounds, host (seconds until the call returned), peak (bytes); or
        `error`, or for the optional calls `not_measured`.
    """
    prepare, rows = prepare or {}, {}
    for name, call in calls.items():
        try:
            if name in prepare:
                prepare[name]()
            rows[name] = {"peak": peak_of(call)}
        except Exception as error:
            rows[name] = {"not_measured" if name in optional else "error": text_of(error)}
    if "peak" not in rows[floor]:
        raise RuntimeError(f"{floor}: {rows[floor]}")
    device = {name: [] for name, row in rows.items() if "peak" in row}
    host = {name: [] for name in device}
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for name in device:
                if name in prepare:
                    prepare[name]()
                for seconds, value in zip((device[name], host[name]), timed(calls[name])):
                    seconds.append(value)
    finally:
        gc.enable()
    for name, row in record.ratios(device, floor).items():
        rows[name] |= {**row, "host": statistics.median(host[name])}
    return rows


def median_of(call, rounds: int = ROUNDS) -> float:
    """Median device seconds, after one call that is not counted."""
    return statistics.median([timed(call)[0] for _ in range(rounds + 1)][1:])
