"""docs/migrating.md: both blocks of a change of library compute the same, and its lists say what the peers do."""

import ast
import importlib.util
import inspect

import numpy as np
import pytest

from tests import migrating_blocks
from tests.compare import assert_close

ROUNDING = 64.0
"""Peers keep alpha in float32, so they may be this many units of rounding off."""

PAIRS = [
    ("torchaudio", "before", "after", "torchaudio"),
    ("torchaudio", "before", "after, from logits", "torchaudio"),
    ("warp-transducer", "before", "after", "warprnnt_pytorch"),
    ("NeMo", "before", "after", "warprnnt_numba"),
    ("k2 and fast_rnnt", "before", "after", "fast_rnnt"),
    ("k2 and fast_rnnt", "before, pruned", "after, pruned", "fast_rnnt"),
    ("k2 and fast_rnnt", "before, the whole recipe", "after, the whole recipe", "fast_rnnt"),
    ("Others", "before, packed", "after, packed", "optimized_transducer"),
]
REPORTED = {"NeMo": 1.01}
"""Their reported loss in ours: 1 + lambda, as the page says."""


def peer(name):
    pytest.importorskip("torch")
    return pytest.importorskip(name)


@pytest.mark.parametrize("section, before, after, library", PAIRS, ids=lambda part: part.replace(", ", "-"))
def test_before_and_after_are_the_same(section, before, after, library, monkeypatch):
    peer(library)
    code = migrating_blocks.blocks()
    names, wide = (migrating_blocks.batch(monkeypatch, wide=wide) for wide in (False, True))
    loss, gradients = migrating_blocks.results(code[section, before], names)
    own_loss, own_gradients = migrating_blocks.results(code[section, after], names)
    wide["ranges"] = names.get("ranges")
    true_loss, true_gradients = migrating_blocks.results(code[section, after], wide)
    if "packed" in after:
        loss, own_loss, true_loss = (np.atleast_1d(x.sum()) for x in (loss, own_loss, true_loss))
    assert_close(loss / np.float32(REPORTED.get(section, 1)), true_loss, own_loss, k=ROUNDING, what="loss")
    for what, *three in zip(
        ("encoder", "predictor", "weight", "bias"), gradients, true_gradients, own_gradients, strict=True
    ):
        assert_close(*three, k=ROUNDING, what=what)


def test_every_block_is_python_and_has_its_other_half():
    code = migrating_blocks.blocks()
    for name, block in code.items():
        compile(block, str(name), "exec")
    assert {(section, name) for section, *both, _ in PAIRS for name in both} <= set(code)
    assert {*migrating_blocks.AFTER, migrating_blocks.RECIPE} == {(section, after) for section, _, after, _ in PAIRS}
    others = 2 + len(migrating_blocks.SHARED)  # batch, function; a pruned recipe's
    elsewhere = migrating_blocks.TDT, migrating_blocks.JOINTS, migrating_blocks.OPTIONS
    others += sum(section in elsewhere for section, _ in code)
    assert len(code) == others + len({pair[:2] for pair in PAIRS}) + len(PAIRS)


def test_what_is_to_be_copied_is_under_50_lines_and_has_the_names_of_torchaudio():
    code = migrating_blocks.blocks()["torchaudio", "function"]
    assert len(code.splitlines()) < 50
    (function,) = (x for x in ast.parse(code).body if isinstance(x, ast.FunctionDef) and x.name == "rnnt_loss")
    given = function.args
    names = ["logits", "targets", "logit_lengths", "target_lengths", "blank", "clamp", "reduction", "fused_log_softmax"]
    assert [argument.arg for argument in given.args] == names
    assert [ast.literal_eval(value) for value in given.defaults] == [-1, -1, "mean", True]
    if importlib.util.find_spec("torchaudio"):
        theirs = inspect.signature(peer("torchaudio").functional.rnnt_loss).parameters
        assert list(theirs) == names
        assert [theirs[name].default for name in names[4:]] == [-1, -1, "mean", True]
