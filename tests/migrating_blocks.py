"""The blocks of docs/migrating.md, run: loss and gradients that a block comes to, and what the oracle says of them."""

import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np

from tests import joint_oracle
from tests.oracle import truth_and_naive

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "migrating.md"

AFTER = {
    ("torchaudio", "after"): {"blank": -1, "reduction": "mean"},
    ("torchaudio", "after, from logits"): {"blank": -1, "reduction": "mean"},
    ("warp-transducer", "after"): {"reduction": "mean"},
    ("NeMo", "after"): {"blank": -1, "fastemit_lambda": 0.01},
    ("k2 and fast_rnnt", "after"): {"topology": "monotonic", "reduction": "sum"},
    ("k2 and fast_rnnt", "after, pruned"): {"reduction": "sum"},
    ("Others", "after, packed"): {},
}
"""What each block asks of the loss. Bounds of the pruned one are its `ranges`."""

RECIPE = "k2 and fast_rnnt", "after, the whole recipe"
"""A block with two losses, which no single call of the oracle makes."""


TDT = "TDT and multi-blank of NeMo"
"""A section whose blocks have another oracle (dlpack/test_migrating_tdt.py)."""

JOINTS, OPTIONS = "Joints, line by line", "Small options of a joint"
"""Sections whose blocks are compared with joints in torch (dlpack/test_migrating_joints.py)."""

SHARED = "the layers of the simple loss", "functions of a pruned recipe"
"""Blocks of a section that others of it go on from."""


def blocks():
    """{(section, name): code}; the name is the block's first line where that is a comment, else what it is."""
    found = {}
    for section in re.split(r"^## ", PAGE.read_text(), flags=re.M):
        for code in re.findall(r"```python\n(.*?)```", section, re.S):
            first = code.partition("\n")[0]
            name = first[2:] if first.startswith("# ") else "function" if "class TransducerLoss" in code else "batch"
            found[section.partition("\n")[0].strip(), name] = code
    return found


def what_is_to_be_copied(example):
    """The imports of an example and its part to copy: what stands above its proof, below the docstring."""
    above, heading, _ = (ROOT / "examples" / example).read_text().partition("\n# ---- The proof")
    assert heading and "\n# ---- To copy, with the imports above" in above
    return above.split('"""', 2)[2]


def copy_example(monkeypatch):
    """Example 03, without its proof, as the module `joint_loss`, the file that pages ask for."""
    module = ModuleType("joint_loss")
    exec(what_is_to_be_copied("03_torch_autograd.py"), vars(module))
    monkeypatch.setitem(sys.modules, "joint_loss", module)


def batch(monkeypatch, *, wide=False):
    """The names that the page's blocks go on from; in float64 with `wide`, the same numbers."""
    import torch

    copy_example(monkeypatch)
    found, names = blocks(), {}
    (setup,) = (code for (_, name), code in found.items() if name == "batch")
    exec(setup, names)
    for function in (("torchaudio", "function"), *(("k2 and fast_rnnt", name) for name in SHARED)):
        exec(found[function], names)
    if wide:
        names.update({name: names[name].double() for name in ("output", "simple_am", "simple_lm")})
        names.update({name: names[name].detach().double().requires_grad_() for name in ("encoder", "predictor")})
    assert names["encoder"].dtype == (torch.float64 if wide else torch.float32)
    return names


def leaves(names):
    return [names["encoder"], names["predictor"], names["output"].weight, names["output"].bias]


def results(code, names):
    """Run a block: its loss and, unless it did that itself, the gradients of the loss's sum, as NumPy arrays."""
    for leaf in leaves(names):
        leaf.grad = None
    exec(code, names)
    loss = names["loss"]
    if loss.requires_grad:
        loss.sum().backward()
    return np.atleast_1d(loss.detach().numpy()), [leaf.grad.numpy().copy() for leaf in leaves(names)]


def truth(names, *, reduction="none", bounds=None, **options):
    """Truth and naive of the same loss and gradients by the oracle."""
    arrays = [leaf.detach().numpy() for leaf in leaves(names)]
    integers = [names[name].numpy() for name in ("targets", "logit_lengths", "target_lengths")]
    share = 1 / len(arrays[0]) if reduction == "mean" else 1.0
    grad_loss = np.full(len(arrays[0]), share)
    told = []
    for loss, gradients in truth_and_naive(
        joint_oracle.joint_loss_and_grad,
        arrays[0].dtype,
        *arrays,
        *integers,
        bounds=bounds,
        grad_loss=grad_loss,
        **options,
    ):
        told.append((loss if reduction == "none" else np.atleast_1d((share * loss).sum()), gradients))
    return told
