"""Rows of the output layer that an example's vocabulary uses: taken out, and their gradients added back."""

from .launch import cpu_sweep, sweep


@cpu_sweep
def gather_cpu(begin, end, source, ids, target):
    for i in range(begin, end):
        target[i] = source[ids[i]]


def gather(source, ids, target):
    """target[i] = source[ids[i]] for (V, H) `source` and (S, H) `target`."""
    sweep(gather_cpu, len(ids), source, ids, target, work=target.size)


@cpu_sweep
def scatter_cpu(begin, end, source, ids, target):
    for i in range(begin, end):
        for h in range(source.shape[1]):
            target[ids[i], h] += source[i, h]


def scatter(source, ids, target):
    """target[ids[i]] += source[i]; no id stands twice in `ids`."""
    sweep(scatter_cpu, len(ids), source, ids, target, work=source.size)
