"""The joint transducer loss of CuPy arrays: on a stream of yours, with the memory it takes, and compared with the CPU.

Memory is the growth of CuPy's pool: loss, gradients and the workspace, which `memory_limit` bounds.

Run: python examples/05_cupy.py    (needs an NVIDIA GPU and `pip install -e ".[cuda13]"`, or `cuda12`; says so without)
"""

import sys

import numpy as np

import lattice

try:
    import cupy
except ImportError:
    cupy = None
if cupy is None or not cupy.cuda.is_available():
    print("CuPy is not installed: nothing to show" if cupy is None else "CuPy finds no GPU: nothing to show")
    sys.exit()

rng = np.random.default_rng(0)
B, T, U, H, V = 8, 400, 80, 256, 1024  # examples, frames, labels, joint width, vocabulary with the blank
LIMIT = 64 << 20

host = [rng.standard_normal(shape, np.float32) for shape in ((B, T, H), (B, U + 1, H), (V, H), (V,))]
host[2] /= 16
lengths = rng.integers(1, V, (B, U)), np.linspace(T, T // 4, B).astype(int), np.linspace(U, 0, B).astype(int)

# lattice works on CuPy's current stream, and returns while the GPU is still busy.
stream = cupy.cuda.Stream(non_blocking=True)
with stream:
    device = [cupy.asarray(x) for x in (*host, *lengths)]
    lattice.joint_transducer_loss_and_grad(*device, memory_limit=LIMIT)  # compiles
    pool = cupy.get_default_memory_pool()
    pool.free_all_blocks()
    before = pool.total_bytes()
    start, end = cupy.cuda.Event(), cupy.cuda.Event()
    start.record()
    loss, gradients = lattice.joint_transducer_loss_and_grad(*device, memory_limit=LIMIT)
    end.record()
    end.synchronize()
    grown = pool.total_bytes() - before
    results = [cupy.asnumpy(x) for x in (loss, *gradients)]

outputs = sum(x.nbytes for x in results)
logits = B * T * (U + 1) * V * 4
print(f"loss in nats      {results[0].round(1)}")
print(f"time              {cupy.cuda.get_elapsed_time(start, end):.1f} ms")
print(f"memory            {grown / 1e6:.1f} MB, {outputs / 1e6:.1f} of them loss and gradients")
print(f"logits            {logits / 1e6:.0f} MB if they existed")

loss, gradients = lattice.joint_transducer_loss_and_grad(*host, *lengths, memory_limit=LIMIT)
gaps = [np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in zip(results, (loss, *gradients))]
print(f"relative to CPU   {max(gaps):.1e} apart at most, loss and four gradients, l2")
assert max(gaps) < 1e-4, gaps
# The pool rounds each array up, and the ids and lengths are its own too.
assert grown <= outputs + LIMIT + (2 << 20), (grown, outputs, LIMIT)
