"""Ctrl-C in the middle of a long call: seconds until KeyboardInterrupt, and whether the process goes on as before."""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np

import lattice

from .. import record, shapes

BOUND = 2.0
"""Seconds from the signal to the exception, at most."""
AFTER = 0.5
"""Seconds from the start of a call to the signal."""


def long_call(door: str, cells: int):
    """A call that takes many times as long as the wait for the signal, and a short one of the same door."""
    if door == "joint":
        problem = shapes.near_uniform(max(1, cells // 1000), 100, 9, 2000, 512)
        short = shapes.near_uniform(2, 20, 9, 50, 16)
        return lambda: lattice.joint_transducer_loss_and_grad(*problem), lambda: lattice.joint_transducer_loss_and_grad(
            *short
        )
    logits = np.ones((max(1, cells // 60000), 2000, 30, 2000), np.float32)
    B = len(logits)
    targets, T, U = np.ones((B, 29), np.int64), np.full(B, 2000), np.full(B, 29)

    def repeated():
        # One call takes a second or so: the signal has to find one of several in the middle.
        for _ in range(50):
            lattice.transducer_loss_and_grad(logits, targets, T, U, out=logits)

    short = np.random.default_rng(0).standard_normal((2, 40, 6, 300), np.float32)
    return repeated, lambda: lattice.transducer_loss_and_grad(
        short, targets[:1, :5].repeat(2, 0), T[:1].repeat(2) // 50, np.full(2, 5)
    )


def arrays_of(result) -> list[bytes]:
    loss, grads = result
    return [loss.tobytes(), *(x.tobytes() for x in (grads if isinstance(grads, tuple) else (grads,)))]


def child(door: str, cells: int) -> dict:
    """Interrupt a call of this process."""
    # A shell starts what it puts into the background with the signal ignored, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    long, short = long_call(door, cells)
    expected = arrays_of(short())
    sent = []

    def send():
        time.sleep(AFTER)
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=send)
    thread.start()
    interrupted = False
    try:
        long()
    except KeyboardInterrupt:
        interrupted = True
    seconds = time.perf_counter() - sent[0] if sent else float("inf")
    thread.join()
    before = time.process_time()
    time.sleep(0.3)
    at_work = time.process_time() - before > 0.15
    return {
        "interrupted": interrupted,
        "seconds to stop": seconds,
        "threads at work": at_work,
        "same bits after": arrays_of(short()) == expected,
    }


def run(options) -> dict:
    """The record."""
    table, failures = {}, []
    for door, cells in (("joint", 300_000), ("logits", 480_000)):
        command = [sys.executable, "-m", "benchmarks.stress.interrupt", "--door", door, "--cells", str(cells)]
        done = subprocess.run(command, cwd=record.ROOT, capture_output=True, text=True)
        table[door] = json.loads(done.stdout) if done.returncode == 0 else {"error": done.stderr[-2000:]}
        told = table[door]
        if not (told.get("interrupted") and told["same bits after"] and told["seconds to stop"] < BOUND):
            failures.append(door)
    record.show("Ctrl-C", table, ("interrupted", "seconds to stop", "same bits after", "threads at work"))
    return {"bound": BOUND, "rows": table, "failures": failures}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--door", choices=("joint", "logits"), required=True)
    parser.add_argument("--cells", type=int, required=True)
    print(json.dumps(child(**vars(parser.parse_args()))))
