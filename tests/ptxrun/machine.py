"""Blocks of threads that run translated PTX on this processor, wait for each other, and are watched."""

import ctypes
import functools
import random
from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

import llvmlite.binding as llvm
import numpy as np

from . import races
from . import words as w
from .translate import translate

llvm.initialize_native_target()
llvm.initialize_native_asmprinter()

WARP = 32
FAULTS = {
    w.OUTSIDE: "an address outside every array",
    w.MISALIGNED: "a misaligned address",
    w.DIVIDED: "an integer division that has no result",
    w.ENDLESS: "no end in sight",
}
FUEL = 200_000_000
"""Blocks of instructions after which a launch is held to be endless."""
POISON = 0xFFFFFFFF


@dataclass(frozen=True)
class Settings:
    """What a GPU leaves open.

    Attributes
    ----------
    order : str
        How threads and blocks take their turns: "forward", "reverse" or "random:SEED".
    fuse : bool
        Whether products are fused into sums, as ptxas may.
    ex2, rcp : float
        Factors on approximate results, which the ISA promises to within 2**-22.
    strict : bool
        Refuse a barrier of the block that some threads never reach, or that threads wait at in different places.
    log_room : int
        Accesses of memory that are written down for each launch and searched for races; 0 for none.
    seeded : int
        The number of a fault that was translated along, which is then made; 0 for none.
    """

    order: str = "forward"
    fuse: bool = False
    ex2: float = 1.0
    rcp: float = 1.0
    strict: bool = True
    log_room: int = 0
    seeded: int = 0


settings = Settings()


class Totals:
    """What was run: launches, threads and accesses, kernels by name, and races that were found."""

    def __init__(self):
        self.launches, self.blocks, self.threads, self.accesses, self.unlogged = Counter(), 0, 0, 0, 0
        self.races = Counter()


totals = Totals()


class Function:
    """A kernel: translated, compiled, and what of it was reached."""

    def __init__(self, text: str, fuse: bool, seeded=None):
        self.translation = translate(text, fuse=fuse, seeded=seeded)
        module = llvm.parse_assembly(self.translation.ir)
        module.verify()
        target = llvm.Target.from_default_triple()
        machine = target.create_target_machine(
            cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=0, jit=True
        )
        self.engine = llvm.create_mcjit_compiler(module, machine)
        self.engine.finalize_object()
        word, pointer = ctypes.c_int64, ctypes.c_void_p
        self.run = ctypes.CFUNCTYPE(word, pointer, word, pointer, word, pointer)(
            self.engine.get_function_address("run")
        )
        self.covered = np.zeros(len(self.translation.covered), np.uint8)
        self.shared_bytes = max((start + size for start, size in self.translation.shared.values()), default=0) + w.GAP


class Launch(NamedTuple):
    """`parameters` are the bytes of each; `arrays` the addresses and bytes a kernel may touch."""

    name: str
    grid: tuple[int, int]
    threads: int
    parameters: list[bytes]
    arrays: list[tuple[int, int]]


def launch(function: Function, call: Launch) -> None:
    code = function.translation
    for passed, size in zip(call.parameters, code.parameters, strict=True):
        if len(passed) != size:
            raise ValueError(f"a parameter of {size} bytes, not {len(passed)}")
    if not 1 <= call.threads <= 1024 or not (1 <= call.grid[0] <= 2**31 - 1 and 1 <= call.grid[1] <= 65535):
        raise ValueError(f"a grid of {call.grid} blocks of {call.threads} threads")
    packed = np.frombuffer(b"".join(part.ljust(8, b"\xff") for part in call.parameters) or bytes(8), np.uint8).copy()
    shared = np.empty(function.shared_bytes + 16, np.uint8)
    base = -(-shared.ctypes.data // 16) * 16
    arrays = np.array(call.arrays or [(0, 0)], np.int64)
    regions = np.array(list(code.shared.values()) or [(0, 0)], np.int64)
    block = np.zeros(w.CONTEXT_WORDS, np.int64)
    log = np.empty((settings.log_room, 6), np.int64)
    for index, value in {
        w.NTID: call.threads,
        w.NCTAID_X: call.grid[0],
        w.NCTAID_Y: call.grid[1],
        w.PARAMETERS: packed.ctypes.data,
        w.SHARED: base,
        w.GLOBALS: arrays.ctypes.data,
        w.GLOBAL_COUNT: len(arrays),
        w.SHAREDS: regions.ctypes.data,
        w.SHARED_COUNT: len(regions),
        w.COVER: function.covered.ctypes.data,
        w.FUEL: FUEL,
        w.LOG: log.ctypes.data,
        w.LOG_ROOM: len(log),
        w.SEEDED: settings.seeded,
    }.items():
        block[index] = value
    block[[w.EX2, w.RCP]] = np.array([settings.ex2, settings.rcp]).view(np.int64)
    threads = np.empty((-(-call.threads // WARP) * WARP, code.words), np.int64)
    numbers = turns(settings.order, call.grid[0] * call.grid[1]).tolist()
    for number in numbers:
        block[w.CTAID_Y], block[w.CTAID_X] = divmod(number, call.grid[0])
        block[w.BLOCK], block[w.BLOCK_EPOCH] = number, 0
        shared[:] = 0xFF
        _run_block(function, call, block, threads)
    totals.launches[call.name] += 1
    totals.blocks += len(numbers)
    totals.threads += len(numbers) * call.threads
    totals.accesses += int(block[w.LOG_COUNT])
    if settings.log_room:
        totals.unlogged += max(0, int(block[w.LOG_COUNT]) - len(log))
        for found in races.find(log[: block[w.LOG_COUNT]], code.texts):
            totals.races[(call.name, *found)] += 1


@functools.cache
def turns(order: str, count: int) -> np.ndarray:
    """The order in which so many threads or blocks take their turns."""
    kind, _, seed = order.partition(":")
    forward = range(count)
    if kind == "random":
        return np.array(random.Random(int(seed)).sample(forward, count), np.int64)
    return np.array(forward[:: -1 if kind == "reverse" else 1], np.int64)


def _run_block(function, call, block, threads):
    code = function.translation
    threads.fill(-1)
    threads[:, w.RESUME], threads[:, w.WAIT], threads[:, w.EPOCH] = 0, w.RUNS, 0
    threads[call.threads :, w.WAIT] = w.RETURNED_ALL
    threads[:, w.TID] = np.arange(len(threads))
    order = turns(settings.order, call.threads)
    while True:
        bad = function.run(threads.ctypes.data, code.words, order.ctypes.data, len(order), block.ctypes.data)
        if bad:
            fault, address, place = block[[w.FAULT, w.FAULT_ADDRESS, w.FAULT_PLACE]].tolist()
            where = f"block {block[w.CTAID_X]}, thread {bad - 1}"
            raise RuntimeError(f"{call.name}: {FAULTS[fault]} ({address:#x}) at {code.texts[place]!r} in {where}")
        live = threads[:, w.WAIT] == w.WAITS
        if not live.any():
            return
        if not (_release_warps(function, threads, live) or _release_block(function, call, block, threads, live)):
            told = sorted({code.syncs[place - 1].text for place in threads[live, w.RESUME].tolist()})
            raise RuntimeError(f"{call.name}: {live.sum()} threads wait for ever at {told}")


def _release_block(function, call, block, threads, live):
    """Let all go on that wait at the block's barrier, if every thread that has not returned does."""
    places = _different(threads[live, w.RESUME])
    if any(function.translation.syncs[place - 1].opcode[:2] != ("bar", "sync") for place in places):
        return False
    if settings.strict and (len(places) > 1 or live.sum() != call.threads):
        raise RuntimeError(f"{call.name}: {live.sum()} of {call.threads} threads at a barrier, in {len(places)} places")
    threads[live, w.WAIT] = w.RUNS
    block[w.BLOCK_EPOCH] += 1
    return True


def _release_warps(function, threads, live):
    """Serve the warps whose whole mask waits at the same instruction; whether there were any."""
    served = False
    lanes = threads.reshape(-1, WARP, threads.shape[1])
    returned = (threads[:, w.WAIT] == w.RETURNED_ALL).reshape(-1, WARP)
    for place in _different(threads[live, w.RESUME]):
        sync = function.translation.syncs[place - 1]
        if sync.opcode[:2] == ("bar", "sync"):
            continue
        here = live & (threads[:, w.RESUME] == place)
        for mask in _different(threads[here, w.MASK]):
            members = (mask >> np.arange(WARP) & 1).astype(bool)
            asking = (here & (threads[:, w.MASK] == mask)).reshape(-1, WARP)
            if (asking & ~members).any():
                raise RuntimeError(f"a lane is not in its own mask {mask:#x} at {sync.text!r}")
            ready = asking.any(axis=1) & (asking | returned | ~members).all(axis=1)
            if ready.any():
                _serve(sync, lanes, asking & ready[:, None])
                served = True
    return served


def _different(values):
    """The different ones of some numbers; most often all are one."""
    return np.unique(values).tolist() if (values != values[0]).any() else values[:1].tolist()


def _serve(sync, lanes, asking):
    """One instruction of some warps for the lanes that ask for it; all arrays are (warps, lanes)."""
    lane, warp, given = np.arange(WARP), np.arange(len(lanes))[:, None], lanes[:, :, w.VALUE]
    if sync.opcode[0] == "shfl":
        way, by, clamp = sync.opcode[2], lanes[:, :, w.LANE] & 31, lanes[:, :, w.CLAMP]
        fixed = clamp >> 8 & 31
        most, least = (lane & fixed) | (clamp & 31 & ~fixed), lane & fixed
        source = {"up": lane - by, "down": lane + by, "bfly": lane ^ by, "idx": least | (by & ~fixed)}[way]
        valid = source >= most if way == "up" else source <= most
        source = np.where(valid, source, lane) & 31
        lanes[asking, w.RESULT] = np.where(asking[warp, source], given[warp, source], POISON)[asking]
        lanes[asking, w.FLAG] = valid[asking]
    elif sync.opcode[0] == "vote":
        ballots = ((asking & (given == 1)) * (np.int64(1) << lane)).sum(axis=1)
        lanes[asking, w.RESULT] = np.broadcast_to(ballots[:, None], asking.shape)[asking]
    else:
        # Only this one orders the memory of its lanes as well.
        lanes[asking, w.EPOCH] += 1
    lanes[asking, w.WAIT] = w.RUNS
