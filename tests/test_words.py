"""One word, one meaning: words that were given up are gone, from code, documents and tests."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GONE = {
    "JointTiles": "Tiler, and functions over it",
    "PathTiles": "tiles/path.py: along",
    "AlignmentTiles": "tiles/path.py: best",
    r"lattice[./](devices|arrays|dlpack|checks|groups)\b": "a wing of lattice",
    r"lattice[./](joint_plan|pullback|certificate|path_tiles)\b": "a wing of lattice",
    r"lattice[./](beam|scorer|predictions|inputs_\w+)\b": "a wing of lattice",
    r"\b(joint_plan|path_tiles|inputs_(alignments|ctc|decode|restrictions|risk))\b": "a wing of lattice",
    r"kernels[./](bounds|path|ctc)\b": "upper_bounds, best_path, ctc_sums",
    r"\bdevice\.keep\b": "hold_until_read",
    r"kernels\.best_path\.keep\b": "path_memory",
    r"\bGroup\.index\b|\bgroup\.index\b": "device_frames",
    r"emissions\._sum\b": "sum_of",
    r"\bnumber\(problem\b": "make_group",
    r"\b_Frames\b": "CtcFrames",
}
"""Regular expression -> what stands in its place."""
ELSEWHERE = ("CHANGELOG.md", "tests/test_words.py", "benchmarks/results/", "benchmarks/house")
"""History, this list, and records of earlier code."""
BARE = {"blank", "label"}
"""An id, a score or a posterior: behind the doors a name says which."""
NAMED = ("lattice/kernels", "lattice/tiles", "lattice/lattices.py", "lattice/ctc_frames.py")
STATE = ("upper_bounds", "certify", "narrow", "occupied", "state")
"""Kernels that work on the state of cells, where a total was what is the rest."""


def texts():
    """Name -> text of everything a person reads."""
    for pattern in ("*.md", "*.toml", "Makefile", "*/**/*.py", "*/**/*.md", "*/**/*.rst"):
        for path in ROOT.glob(pattern):
            name = path.relative_to(ROOT).as_posix()
            if not name.startswith((".", "build", *ELSEWHERE)):
                yield name, path.read_text()


@pytest.fixture(scope="module", autouse=True)
def sources():
    if not (ROOT / "lattice").is_dir():
        pytest.skip("no sources lie beside the tests")


@pytest.mark.parametrize("word", GONE)
def test_words_that_were_given_up_are_gone(word):
    found = [f"{name}: {hit[0]}" for name, text in texts() for hit in re.finditer(word, text)]
    assert not found, f"instead: {GONE[word]}"


def named(tree):
    """Parameters, fields and attributes of a module, with their lines: the names that others read."""
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno


def modules(*places):
    for place in places:
        path = ROOT / place
        yield from sorted(path.rglob("*.py")) if path.is_dir() else [path]


def test_behind_the_doors_a_blank_or_label_says_what_it_is():
    """`ArcPosteriors` alone may have them: there they cannot be anything else."""
    found = [
        (path.name, line)
        for path in modules(*NAMED)
        for name, line in named(ast.parse(path.read_text()))
        if name in BARE
    ]
    text = (ROOT / "lattice" / "kernels" / "state.py").read_text().splitlines()
    begin = next(i for i, line in enumerate(text, 1) if line.startswith("class ArcPosteriors"))
    assert [(name, line - begin < 8) for name, line in found] == [("state.py", True)] * 2


def test_the_state_of_a_cell_has_a_rest_and_no_total():
    for name in STATE:
        assert not re.search(r"\btotals?\b", (ROOT / "lattice" / "kernels" / f"{name}.py").read_text()), name


def test_the_arrays_of_a_state_are_asked_for_by_name():
    for path in modules("lattice", "samplers"):
        assert not re.search(r"\b(state|into|visited|posteriors)\[-?\d", path.read_text()), path.name


def test_a_rest_is_compared_in_one_place():
    """What a rest says of its cell is asked by the predicates of `state`."""
    for path in modules("lattice", "samplers"):
        if path.name != "state.py":
            text = path.read_text()
            assert not re.search(r"\b(WANTED|BOUND)\b *[<>=!]=?|[<>=!]= *(WANTED|BOUND)\b|\brest\[\w+\] *[<>]", text), (
                path.name
            )
