"""The loss of example 03 under torch's DistributedDataParallel: gloo on the CPU, nccl where each process has a GPU.

Two processes take uneven shares of a ragged batch. Their gradients are those of one process on both shares, and through
steps of SGD their weights stay the same. DDP averages gradients over the processes, so the loss is scaled to be a mean.
A seed of dropout belongs to one step of one process: were it shared, so would be the masks.

Run: python examples/06_torch_ddp.py    (needs torch; for CUDA also CuPy)
"""

import copy
import os
import runpy
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

joint_transducer_loss = runpy.run_path(str(Path(__file__).with_name("03_torch_autograd.py")))["joint_transducer_loss"]
PROCESSES = 2
FRAMES, LABELS = torch.tensor([30, 22, 9, 27, 13]), torch.tensor([8, 5, 0, 8, 3])
BATCH, FEATURES, WIDTH, VOCABULARY = len(FRAMES), 5, 8, 20
ROUNDING = torch.finfo(torch.float64).eps * int(FRAMES @ (LABELS + 1))  # of sums over all cells in another order


class Transducer(torch.nn.Module):
    """Losses (B,) from features (B, T, F) and targets (B, U). The loss is part of `forward`, because DDP wraps that."""

    def __init__(self):
        super().__init__()
        self.encoder = torch.nn.GRU(FEATURES, WIDTH, batch_first=True)
        self.embedding = torch.nn.Embedding(VOCABULARY, WIDTH)
        self.predictor = torch.nn.GRU(WIDTH, WIDTH, batch_first=True)
        self.output = torch.nn.Linear(WIDTH, VOCABULARY)

    def forward(self, features, targets, frames, labels, seed):
        encoder, _ = self.encoder(features)
        history = torch.nn.functional.pad(targets, (1, 0))  # the blank, then the labels
        predictor, _ = self.predictor(self.embedding(history))
        given = encoder, predictor, self.output.weight, self.output.bias, targets, frames, labels
        return joint_transducer_loss(*given, dropout=(0.2, seed) if self.training else None)


def train(model, shares, scale):
    """Gradients of the first step, weights after ten steps, and these shares' part of the mean loss at each step."""
    optimizer, first, losses = torch.optim.SGD(model.parameters(), lr=0.02), None, []
    for step in range(10):
        optimizer.zero_grad()
        seeds = {rank: step * PROCESSES + rank for rank in shares}
        loss = sum(model(*batch, seeds[rank]).sum() for rank, batch in shares.items()) / BATCH
        (scale * loss).backward()
        if first is None:
            first = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
        optimizer.step()
        losses.append(loss.detach())
    return first, torch.cat([parameter.detach().flatten() for parameter in model.parameters()]), torch.stack(losses)


def deviation(ours, truth):
    """Largest difference, in units of the largest entry."""
    return float((ours - truth).abs().max() / truth.abs().max())


def work(rank, folder):
    device = f"cuda:{rank}" if torch.cuda.device_count() >= PROCESSES else "cpu"
    backend = "gloo" if device == "cpu" else "nccl"
    dist.init_process_group(backend, f"file://{folder}/rendezvous", rank=rank, world_size=PROCESSES)
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    batch = torch.randn(BATCH, 30, FEATURES), torch.randint(1, VOCABULARY, (BATCH, 8)), FRAMES, LABELS
    batch = [array.to(device) for array in batch]
    alone = Transducer().to(device)
    shared = DistributedDataParallel(copy.deepcopy(alone))
    cuts = [BATCH * one // PROCESSES for one in range(PROCESSES + 1)]
    shares = {one: [array[cuts[one] : cuts[one + 1]] for array in batch] for one in range(PROCESSES)}
    gradients, weights, losses = train(shared, {rank: shares[rank]}, scale=PROCESSES)
    true_gradients, true_weights, true_losses = train(alone, shares, scale=1)
    dist.all_reduce(losses)
    worst = deviation(gradients, true_gradients)
    assert worst <= ROUNDING, f"gradients {worst:.1e} from those of one process"
    assert deviation(losses, true_losses) <= 100 * ROUNDING and deviation(weights, true_weights) <= 100 * ROUNDING
    others = [torch.empty_like(weights) for _ in range(PROCESSES)]
    dist.all_gather(others, weights)
    assert all(torch.equal(weights, other) for other in others), "the weights of the processes differ"
    if rank == 0:
        print(f"{backend}: gradients are those of one process (off by {worst:.0e} at most, rounding {ROUNDING:.0e})")
        steps = f"mean loss {losses[0]:.3f} -> {losses[-1]:.3f} nats in {len(losses)} steps of SGD"
        print(f"{backend}: {steps}, the same bits on both")
    del shared  # it holds the group, whose threads must have ended when the process does
    dist.destroy_process_group()


if __name__ == "__main__":
    # The processes share the cores; what they start reads this before it imports anything.
    share = str(max(1, os.cpu_count() // PROCESSES))
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), share))
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(work, (folder,), nprocs=PROCESSES)
