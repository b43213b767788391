"""Runs of a study, some at a time, each in a process of its own that uses one core. One bar of progress for all."""

import argparse
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

from tqdm import tqdm


def run_all(args: argparse.Namespace, task: Callable, rows: list, steps: int) -> dict[str, list[dict]]:
    """A task for all rows with all seeds.

    Parameters
    ----------
    args : argparse.Namespace
        `seeds` and `jobs` are looked at here.
    task : callable
        `task(args, row, seed, steps_done) -> dict`; it puts the loss of each step into the queue. Its module is not
        `__main__`: a process does not run the package's `__main__` again, so it would not find the task there.
    rows : list
        Each has a `name`.
    steps : int
        In all, of the runs that are not done yet.

    Returns
    -------
    dict of lists
        Results by the row's name, in the order of the seeds.
    """
    os.environ["NUMBA_NUM_THREADS"] = "1"
    spawn = multiprocessing.get_context("spawn")
    todo = [(row, seed) for seed in range(args.seeds) for row in rows]
    with (
        spawn.Manager() as manager,
        ProcessPoolExecutor(args.jobs, mp_context=spawn) as pool,
        tqdm(total=steps, unit="step", dynamic_ncols=True) as progress,
    ):
        steps_done = manager.Queue()
        futures = {key: pool.submit(task, args, *key, steps_done) for key in todo}
        for future in futures.values():
            future.add_done_callback(lambda future: steps_done.put(None))
        finished = 0
        while finished < len(todo):
            loss = steps_done.get()
            if loss is None:
                finished += 1
                progress.set_postfix(runs=f"{finished}/{len(todo)}")
            else:
                progress.update()
        results = {key: future.result() for key, future in futures.items()}
    return {row.name: [results[row, seed] for seed in range(args.seeds)] for row in rows}
