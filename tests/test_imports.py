"""The arrows of the house: who may import whom. An import that breaks a rule is named with its file."""

import ast
import functools
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from benchmarks import house_map

ROOT = Path(__file__).parents[1]
PACKAGES = ("lattice", "samplers")
DOORS = {"transducer", "joint", "path", "alignments", "posteriors", "scores", "internal_language_model"}
DOORS |= {"ctc", "risk", "decode", "report", "warm"}
FLOORS = (
    {"kernels"},
    {"device", "layout"},
    {"inputs", "topology", "annotations"},
    {"staging", "lattices", "exits", "ctc_frames", "aligned_frames", "tiles", "search"},
    DOORS,
    {"__init__"},
)
"""Rooms and wings of `lattice` from the ground up: each imports what is below it, or on its own floor."""
DOOR_TO_DOOR = {
    ("path", "alignments"): "lattice.path is documented as the one module for everything about alignments",
    ("warm", "ctc"): "to warm up is to call the doors",
    ("warm", "internal_language_model"): "to warm up is to call the doors",
    ("warm", "joint"): "to warm up is to call the doors",
    ("warm", "path"): "to warm up is to call the doors",
    ("warm", "report"): "to warm up is to call the doors",
    ("warm", "risk"): "to warm up is to call the doors",
    ("warm", "scores"): "to warm up is to call the doors",
    ("warm", "transducer"): "to warm up is to call the doors",
}
UPWARD = {("lattice.kernels.ptx", "lattice.device.arrays"): "a launch needs CuPy, which is imported in one place"}
SAMPLERS_NEED = {
    "lattice.annotations": "types of the doors' arguments",
    "lattice.device.arrays": "arrays in and out",
    "lattice.device.memory": "memory and copies of the host and of a GPU",
    "lattice.inputs.checks": "checks of single arguments, with one kind of error text",
    "lattice.inputs.targets": "labels and lengths are read as the losses read them",
    "lattice.kernels.*": "compile options, launches, scalar maths, rows",
}
INTERNALS = {
    "benchmarks/": "counts what runs inside: kernels, plans, rounds",
    "studies/certified_lattice/": "draws the rounds of the certificate, which no public function shows",
}
"""Programs that import more than public names, and why."""


@functools.cache
def known():
    """Name -> path of the modules of both packages."""
    return house_map.modules_of(ROOT, PACKAGES)


def imports(name, path):
    """The modules that a module imports from."""
    return house_map.sources_of(name, path, house_map.parsed(path.read_text()), known())


@functools.cache
def arrows():
    return {name: imports(name, path) for name, path in known().items()}


def within(name, package):
    """Is a module a package, or in it?"""
    return name == package or name.startswith(f"{package}.")


def room(module):
    """The room or wing of `lattice` that a module is in."""
    return module.split(".")[1] if "." in module else "__init__"


def floor(module):
    return next(number for number, rooms in enumerate(FLOORS) if room(module) in rooms)


@pytest.fixture(scope="module", autouse=True)
def sources():
    if not (ROOT / "lattice").is_dir():
        pytest.skip("no sources lie beside the tests")


def test_no_circle():
    try:
        TopologicalSorter(arrows()).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_no_import_leads_up():
    ours = {name: found for name, found in arrows().items() if within(name, "lattice")}
    up = {
        (name, other)
        for name, found in ours.items()
        for other in found
        if within(other, "lattice") and floor(other) > floor(name)
    }
    assert up == set(UPWARD)


def test_no_door_imports_another():
    found = {
        (room(name), room(other))
        for name, others in arrows().items()
        for other in others
        if within(name, "lattice") and within(other, "lattice")
    }
    assert {(one, other) for one, other in found if {one, other} <= DOORS and one != other} == set(DOOR_TO_DOOR)


def test_lattice_never_imports_samplers():
    assert not [
        (name, other)
        for name, found in arrows().items()
        for other in found
        if within(name, "lattice") and within(other, "samplers")
    ]


def test_samplers_import_what_is_written_here():
    kernels = SAMPLERS_NEED["lattice.kernels.*"] and "lattice.kernels."
    used = {
        other
        for name, found in arrows().items()
        for other in found
        if within(name, "samplers") and within(other, "lattice")
    }
    assert {other for other in used if not other.startswith(kernels)} == {
        name for name in SAMPLERS_NEED if "*" not in name
    }


def test_a_stage_never_imports_what_is_called_with_it():
    """`tiles` from the bottom up: no module imports one that calls it."""
    order = ("groups", "plan", "tiler", "certificate", "band", "gradients", "full_sum", "path", "pullback")
    for name, found in arrows().items():
        if name.startswith("lattice.tiles."):
            above = order[order.index(name.rpartition(".")[2]) :]
            assert not {
                other for other in found if other.startswith("lattice.tiles.") and other.rpartition(".")[2] in above
            }


def test_cupy_is_imported_in_one_place_and_lazily():
    found = {name for name, others in arrows().items() if any(within(other, "cupy") for other in others)}
    assert found == {"lattice.device.arrays"}
    body = ast.parse((ROOT / "lattice" / "device" / "arrays.py").read_text()).body
    assert not any(isinstance(node, ast.Import | ast.ImportFrom) and "cupy" in ast.unparse(node) for node in body)


def private(path):
    """What a program imports from below the packages' public names."""
    for name in imports(path.relative_to(ROOT).with_suffix("").as_posix().replace("/", "."), path):
        if name.startswith(("lattice.", "samplers.")):
            yield name


@pytest.mark.parametrize("folder", ["examples", "studies", "benchmarks"])
def test_programs_use_public_names(folder):
    if not (ROOT / folder).is_dir():
        pytest.skip(f"no {folder} lie beside the tests")
    found = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        if names := set(private(path)):
            found[name] = names
    allowed = tuple(INTERNALS)
    assert not {name: names for name, names in found.items() if not name.startswith(allowed)}
    assert all(any(name.startswith(entry) for name in found) for entry in allowed if entry.startswith(folder))
