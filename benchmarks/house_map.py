"""Rooms, floors and arrows of a source tree, from its imports.

A room is a module; an `__init__.py` with nothing but a docstring is none. At first sight a sub-package of `lattice` is
one room, and so are `samplers` and `benchmarks`; that is how HOUSE.md counted 36 rooms, 15 floors and 152 arrows.

An arrow is a pair of rooms, the first of which imports from the second anywhere in its code. `from . import x` and
`from .x import y` both lead to x. The floors are the rooms of the longest chain of arrows. A circle is rooms that reach
each other; it stands on one floor.

An arrow runs up where it leads to a room of a higher rank. From the bottom, the ranks of a package are its kernels,
all other rooms, its doors and `__init__`; `lattice` is below `samplers`, and `samplers` below `benchmarks`. Doors are
the modules at the top of a package that its `__init__` imports from. Arrows from door to door stay on one rank and are
listed apart.
"""

import ast
import functools
from pathlib import Path
from typing import NamedTuple

PACKAGES = ("lattice", "samplers", "benchmarks")
"""From the bottom up."""

parsed = functools.cache(ast.parse)


class Map(NamedTuple):
    """What the imports of a tree say; an arrow is (room that imports, room that is imported from).

    Attributes
    ----------
    floor : dict of str to int
        1 for a room that imports from no other.
    """

    rooms: set[str]
    arrows: set[tuple[str, str]]
    floor: dict[str, int]
    upward: set[tuple[str, str]]
    door_to_door: set[tuple[str, str]]
    circles: set[frozenset[str]]


def modules_of(tree: Path, packages=PACKAGES) -> dict[str, Path]:
    """Files of the modules of some packages by dotted name; an `__init__.py` goes by the name of its folder."""
    files = [path for package in packages for path in sorted((tree / package).rglob("*.py"))]
    return {name_of(path.relative_to(tree)): path for path in files}


def name_of(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def at_first_sight(name: str) -> str:
    """The room of a module for a reader who sees what stands at the top of `lattice`, and the other packages as one."""
    package, *inner = name.split(".")
    return ".".join([package, *inner[:1]]) if package == "lattice" else package


def map_of(tree: Path, packages=PACKAGES, room_of=str, without=()) -> Map:
    """The map of some packages.

    Parameters
    ----------
    tree : Path
    packages : sequence of str
        From the bottom up.
    room_of : callable
        The room of a module, by default itself.
    without : collection of str
        Rooms at first sight whose modules are left out.
    """
    modules = {name: path for name, path in modules_of(tree, packages).items() if at_first_sight(name) not in without}
    read = {name: parsed(path.read_text()) for name, path in modules.items()}
    lived_in = {name for name, path in modules.items() if path.stem != "__init__" or holds_code(read[name])}
    lines = {name: imported(name, modules[name], read[name], lived_in) for name in lived_in}
    doors = {name for package in packages for name in lines.get(package, ()) if name.rpartition(".")[0] == package}
    rooms = {room_of(name) for name in lived_in}
    pairs = {(room_of(a), room_of(b)) for a in lived_in for b in lines[a]}
    arrows = {(a, b) for a, b in pairs if a != b}

    def rank(room):
        package, *inner = room.split(".")
        return packages.index(package), 3 if not inner else 2 if room in doors else int(inner[0] != "kernels")

    upward = {(a, b) for a, b in arrows if rank(b) > rank(a)}
    floor, circles = floors(rooms, arrows)
    return Map(rooms, arrows, floor, upward, {arrow for arrow in arrows if doors.issuperset(arrow)}, circles)


def holds_code(module: ast.Module) -> bool:
    """Whether a module holds more than its docstring."""
    return any(not isinstance(node, ast.Expr) for node in module.body)


def imported(name: str, path: Path, module: ast.Module, modules) -> set[str]:
    """The modules, of those given, that a module imports from."""
    return sources_of(name, path, module, modules) & modules - {name}


def sources_of(name: str, path: Path, module: ast.Module, modules) -> set[str]:
    """All that a module imports from, wherever in it the import stands; of a package, the module if it is known."""
    found = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            folder = name.split(".") if path.stem == "__init__" else name.split(".")[:-1]
            # One dot is the folder itself, each further one the folder above.
            start = folder[: len(folder) - node.level + 1] if node.level else []
            base = ".".join([*start, node.module] if node.module else start)
            inner = {alias.name: f"{base}.{alias.name}" for alias in node.names}
            found |= {inner[key] if inner[key] in modules else base for key in inner}
    return found


def floors(rooms, arrows) -> tuple[dict[str, int], set[frozenset[str]]]:
    """The floor of each room, and the circles."""
    behind = {room: {b for a, b in arrows if a == room} for room in rooms}
    reached = dict(behind)
    # Each round doubles the length of the chains that are known.
    for _ in range(len(rooms).bit_length()):
        reached = {room: there.union(*(reached[other] for other in there)) for room, there in reached.items()}
    ring = {room: frozenset({room} | {b for b in reached[room] if room in reached[b]}) for room in rooms}

    @functools.cache
    def height(one):
        below = {ring[b] for room in one for b in behind[room]} - {one}
        return 1 + max(map(height, below), default=0)

    return {room: height(ring[room]) for room in rooms}, {one for one in ring.values() if len(one) > 1}
