"""Data-parallel training of the fused joint: mpi4py on the CPU, NCCL through CuPy where each rank has a GPU of its own.

    mpirun -n 2 python -m studies.data_parallel

It takes seconds, and `pip install -e ".[test-mpi]"`; for GPUs also CuPy and its NCCL.

Each rank computes the losses and gradients of its rows of a ragged batch, in uneven shares. One sum of one buffer over
the ranks gives each rank the gradient of the mean loss. With sampled vocabularies the ranks together draw what one
process would. All of it is checked against one process on the whole batch. Give each rank its share of the cores by
NUMBA_NUM_THREADS and OPENBLAS_NUM_THREADS. `python -m mpi4py -m` in place of `python -m` ends all ranks when one fails.
"""

import argparse
import importlib.util

import numpy as np

import lattice
import samplers

try:
    from mpi4py import MPI
except ImportError:  # told in `main`, so that --help works without it
    MPI = None

FRAMES, LABELS = np.array([30, 22, 9, 27, 13, 30, 18]), np.array([8, 5, 0, 8, 3, 6, 7])
B, T, U = len(FRAMES), 30, 8  # examples, frames, labels
F, H, V, S = 5, 8, 40, 16  # features, joint width, all ids, drawn ids
# Projection of the features, embedding of the labels, weight and bias of the output layer.
SHAPES = (F, H), (V, H), (V, H), (V,)
ROUNDING = np.finfo(np.float64).eps * (FRAMES @ (LABELS + 1))
"""Sums over all cells in another order differ by at most so much of the sum of their magnitudes."""


def sum_over_ranks(world):
    """The array module to work with, and a function that replaces a buffer by its sum over all ranks."""
    node = world.Split_type(MPI.COMM_TYPE_SHARED)
    if not world.allreduce(has_gpus(node.size), MPI.LAND):
        return np, lambda buffer: world.Allreduce(MPI.IN_PLACE, buffer)
    import cupy
    from cupyx.distributed import init_process_group

    cupy.cuda.Device(node.rank).use()
    nccl = init_process_group(world.size, world.rank, use_mpi=True)  # NCCL's unique id goes round through mpi4py
    return cupy, lambda buffer: nccl.all_reduce(buffer, buffer, "sum")


def has_gpus(count):
    if importlib.util.find_spec("cupy") is None:
        return False
    import cupy
    import cupy.cuda.nccl

    return cupy.cuda.is_available() and cupy.cuda.nccl.available and cupy.cuda.runtime.getDeviceCount() >= count


def parts(flat, xp):
    """Parameters, or their gradients, as views of one flat array: one buffer is all that the ranks exchange."""
    ends = np.cumsum([np.prod(shape) for shape in SHAPES])
    return [part.reshape(shape) for part, shape in zip(xp.split(flat, ends[:-1].tolist()), SHAPES)]


def loss_and_grad(flat, batch, rows, seed, xp):
    """Losses, gradients of encoder and predictor, vocabularies: of some rows; then their part of the flat gradient."""
    projection, embedding, weight, bias = parts(flat, xp)
    features, targets, frames, labels = (array[rows] for array in batch)
    history = xp.eye(V)[xp.pad(targets, ((0, 0), (1, 0)))]  # (B, U+1, V): the blank, then the labels, one hot
    vocabulary = None
    if seed is not None:
        # The row counter starts at this rank's first row, so the draw does not depend on how rows are shared out.
        options = {"distribution": samplers.log_uniform(V), "seed": seed, "row_offset": rows.start}
        vocabulary = samplers.sample_vocabulary(targets, labels, S, **options).ids
    # 1/B of the whole batch: the mean over this rank's own rows would count rows of small shares for more.
    loss, gradients = lattice.joint_transducer_loss_and_grad(
        features @ projection,
        history @ embedding,
        weight,
        bias,
        targets,
        frames,
        labels,
        vocabulary=vocabulary,
        grad_loss=xp.full(len(targets), 1 / B),
    )
    through = (
        xp.einsum("btf,bth->fh", features, gradients.encoder),
        xp.einsum("buv,buh->vh", history, gradients.predictor),
    )
    gradient = xp.concatenate([array.ravel() for array in (*through, gradients.weight, gradients.bias)])
    return [
        loss,
        gradients.encoder,
        gradients.predictor,
        xp.zeros((0, S)) if vocabulary is None else vocabulary,
    ], gradient


def to_host(array):
    return array.get() if hasattr(array, "get") else array


def deviation(ours, truth):
    """Largest difference, in units of the largest entry."""
    return np.abs(ours - truth).max(initial=0) / max(np.abs(truth).max(initial=0), 1e-300)


def main():
    argparse.ArgumentParser(
        prog="mpirun -n 2 python -m studies.data_parallel",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()
    if MPI is None:
        raise SystemExit('mpi4py cannot be imported: pip install -e ".[test-mpi]"')
    world = MPI.COMM_WORLD
    if world.size > B:
        raise SystemExit(f"{world.size} ranks, but the batch has {B} examples")
    xp, reduce = sum_over_ranks(world)
    rng = np.random.default_rng(0)  # every rank makes the same batch, and works on its own rows of it
    batch = [xp.asarray(x) for x in (rng.standard_normal((B, T, F)), rng.integers(1, V, (B, U)), FRAMES, LABELS)]
    start = xp.asarray(rng.standard_normal(sum(np.prod(shape) for shape in SHAPES)) / 2)
    everything, rows = slice(0, B), slice(B * world.rank // world.size, B * (world.rank + 1) // world.size)
    shares = world.gather(f"{rows.start}:{rows.stop}")
    say = print if world.rank == 0 else lambda *_: None
    say(f"ranks: {world.size}, on {'the CPU' if xp is np else 'GPUs'}, with the rows {' '.join(shares or [])}")

    for kind, seed in (("full softmax", None), ("sampled vocabularies", 1)):
        own, gradient = loss_and_grad(start, batch, rows, seed, xp)
        reduce(gradient)
        gathered = world.allgather([to_host(array) for array in own])
        whole, truth = loss_and_grad(start, batch, everything, seed, xp)
        *ours, ids = (np.concatenate(pieces) for pieces in zip(*gathered))
        worst = max(map(deviation, [*ours, to_host(gradient)], map(to_host, [*whole[:3], truth])))
        # Every rank has to know, so that none is left waiting for another.
        worst, same = world.allreduce(worst, MPI.MAX), world.allreduce(np.array_equal(ids, to_host(whole[3])), MPI.LAND)
        assert same, f"{kind}: the ranks drew other ids than one process"
        assert worst <= ROUNDING, f"{kind}: {worst:.1e} from one process"
        gap = f"largest difference {worst:.0e}, rounding {ROUNDING:.0e}"
        say(f"{kind}: losses and gradients are those of one process ({gap})")

    flat, alone, losses = start.copy(), start.copy(), []
    for step in range(10):
        (loss, *_), gradient = loss_and_grad(flat, batch, rows, step, xp)
        reduce(gradient)
        flat -= 0.5 * gradient
        alone -= 0.5 * loss_and_grad(alone, batch, everything, step, xp)[1]
        losses.append(world.allreduce(float(loss.sum())) / B)
    weights = world.allgather(to_host(flat))
    assert all(np.array_equal(weights[0], other) for other in weights), "the weights of the ranks differ"
    assert world.allreduce(deviation(to_host(flat), to_host(alone)), MPI.MAX) <= 100 * ROUNDING
    fall = f"mean loss {losses[0]:.3f} -> {losses[-1]:.3f} nats"
    say(f"10 steps of SGD with vocabularies: {fall}, the same bits on every rank")


if __name__ == "__main__":
    main()
