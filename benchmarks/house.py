"""Structure of a source tree: rooms, floors, arrows, three walks, comments, lengths; no time is measured.

- The map: `house_map` says what a room, a floor, an arrow and a circle are.
- The walks: `house_walks` follows a parameter through one small call. The stays are the length of the walk. A climb is
  a step of the walk to a room on a higher floor of the map, by a call or by a return. A call up is a climb by a call:
  a room calls back into one that stands above it.
- The text: code is lines that are not blank, not only a comment, and not part of a docstring. A docstring is any string
  that stands as a statement. A comment is a token, unless it speaks to a tool (`fmt:`, `type:`, `noqa`, `pragma`). The
  lines of a function run from `def` to its end, docstring included; `self` counts as an argument.
- The files: those that git tracks. A row of a table begins with `|`.
"""

import ast
import datetime
import functools
import io
import json
import os
import platform
import re
import subprocess
import sys
import tokenize
from pathlib import Path

import numpy as np

from .house_map import PACKAGES, Map, at_first_sight, map_of, modules_of, parsed

FOR_TOOLS = re.compile(r"#\s*(fmt:|type:|noqa|pragma)")
MOST = 120
"""Characters a line should have at most."""
FEW = 4
"""Members of a list that the table shows; the record has all."""


@functools.cache
def comments_of(text: str) -> list[tokenize.TokenInfo]:
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return [token for token in tokens if token.type == tokenize.COMMENT]


def skips_of(text: str) -> int:
    """How often the formatter is told to leave a line as it is."""
    if "# fmt: skip" not in text:
        return 0
    return sum(token.string.startswith("# fmt: skip") for token in comments_of(text))


def count(paths) -> dict[str, int]:
    """Lines of code and of docstrings, comments, and `# fmt: skip`, of some files together."""
    code, docstrings, comments, skips = 0, 0, 0, 0
    for path in paths:
        text = path.read_text()
        lines, said, strings = text.splitlines(), comments_of(text), set()
        for node in ast.walk(parsed(text)):
            if isinstance(node, ast.Expr) and isinstance(getattr(node.value, "value", None), str):
                strings.update(range(node.lineno, node.end_lineno + 1))
        apart = {row for row, column in (token.start for token in said) if not lines[row - 1][:column].strip()}
        code += sum(bool(line.strip()) and row not in strings | apart for row, line in enumerate(lines, 1))
        docstrings += len(strings)
        comments += sum(not FOR_TOOLS.match(token.string) for token in said)
        skips += skips_of(text)
    return {"code": code, "docstrings": docstrings, "comments": comments, "skips": skips}


def functions_of(modules: dict[str, Path]) -> list[tuple[str, int, int]]:
    """(name, lines, arguments) of each function, methods and inner functions too."""
    found = []
    for name, path in modules.items():
        for node in ast.walk(parsed(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                own = node.args
                arguments = [*own.posonlyargs, *own.args, *own.kwonlyargs, *filter(None, (own.vararg, own.kwarg))]
                found.append((f"{name}.{node.name}", node.end_lineno - node.lineno + 1, len(arguments)))
    return found


def git(tree: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=tree, capture_output=True, text=True, check=True).stdout.strip()


def files_of(tree: Path, *suffixes: str) -> list[Path]:
    """Files that git tracks, or all where there is no git."""
    if (tree / ".git").exists():
        names = git(tree, "ls-files", "-z").split("\0")
    else:
        names = [str(path.relative_to(tree)) for path in sorted(tree.rglob("*"))]
    return [tree / name for name in names if name.endswith(suffixes) and (tree / name).is_file()]


def long_lines(paths) -> tuple[int, int]:
    """Lines past the most, and rows of tables past it."""
    lines = [line for path in paths for line in path.read_text().splitlines() if len(line) > MOST]
    rows = sum(line.startswith("|") for line in lines)
    return len(lines) - rows, rows


WITHOUT_KERNELS = "lattice without kernels"
WHOLE = "lattice and samplers"
WIDE = "lattice, samplers, benchmarks, at first sight"


def maps_of(tree: Path) -> dict[str, Map]:
    kernels = ("lattice.kernels",)
    return {
        f"{WITHOUT_KERNELS}, by module": map_of(tree, ("lattice",), without=kernels),
        f"{WITHOUT_KERNELS}, at first sight": map_of(tree, ("lattice",), at_first_sight, kernels),
        f"{WHOLE}, by module": map_of(tree, PACKAGES[:2]),
        WIDE: map_of(tree, room_of=at_first_sight),
    }


def map_figures(drawn: Map) -> dict:
    return {
        "rooms": len(drawn.rooms),
        "floors": max(drawn.floor.values()),
        "arrows": len(drawn.arrows),
        "arrows up": written(drawn.upward),
        "arrows from door to door": written(drawn.door_to_door),
        "circles": sorted(map(sorted, drawn.circles)),
    }


def written(arrows) -> list[str]:
    return sorted({f"{a} -> {b}" for a, b in arrows})


def walk_figures(tree: Path, floor: dict[str, int], wide: dict[str, int]) -> dict:
    """The walks, by the floors of all modules and of the rooms at first sight."""
    # -P: the folder of the script has a `samplers.py`, and must not come before the tree.
    command = [sys.executable, "-P", str(Path(__file__).with_name("house_walks.py")), str(tree)]
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the walks failed:\n{done.stderr[-2000:]}")
    figures = {}
    for title, walk in json.loads(done.stdout.splitlines()[-1]).items():
        stays, seen = walk["stays"], [at_first_sight(room) for room in walk["stays"]]
        figures[title] = {
            "stays": stays,
            "rooms": sorted(set(stays)),
            "climbs": climbs(stays, floor),
            "calls up": written((a, b) for a, b in walk["calls"] if floor[b] > floor[a]),
            "rooms at first sight": sorted(set(seen)),
            "climbs at first sight": climbs(seen, wide),
        }
    return figures


def climbs(stays: list[str], floor: dict[str, int]) -> int:
    """Steps to a room on a higher floor."""
    return sum(floor[there] > floor[here] for here, there in zip(stays, stays[1:]))


def part_of(name: str) -> str:
    """The part of the two packages in which a module's text is counted."""
    room = at_first_sight(name)
    return {"samplers": room, "lattice.kernels": "lattice/kernels"}.get(room, WITHOUT_KERNELS)


def text_figures(tree: Path) -> dict:
    modules, figures = modules_of(tree, PACKAGES[:2]), {}
    for title in (WITHOUT_KERNELS, "lattice/kernels", "samplers", WHOLE):
        part = {name: path for name, path in modules.items() if title in (part_of(name), WHOLE)}
        counted, functions = count(part.values()), functions_of(part)
        lengths, arguments = ([function[column] for function in functions] for column in (1, 2))
        figures[title] = {
            "lines of code": counted["code"],
            "comments": counted["comments"],
            "comments per 100 lines of code": round(100 * counted["comments"] / counted["code"], 2),
            "lines of docstring a line of code": round(counted["docstrings"] / counted["code"], 2),
            "fmt: skip": counted["skips"],
            "functions": len(functions),
            "lines of a function, median": share(lengths, 50),
            "lines of a function, p90": share(lengths, 90),
            "longest function": "{1} lines, {0}".format(*max(functions, key=lambda function: function[1])),
            "arguments of a function, p90": share(arguments, 90),
            "most arguments": "{2}, {0}".format(*max(functions, key=lambda function: function[2])),
        }
    return figures


def share(numbers: list[int], percent: int) -> int:
    """The smallest of some numbers that so many percent of them do not pass."""
    return int(np.percentile(numbers, percent, method="inverted_cdf"))


def file_figures(tree: Path) -> dict:
    own = modules_of(tree, PACKAGES[:2])
    code, prose = files_of(tree, ".py"), files_of(tree, ".md", ".rst")
    lengths = {str(path.relative_to(tree)): len(path.read_text().splitlines()) for path in own.values()}
    past, rows = long_lines(prose)
    over = {most: sorted(f"{name} {size}" for name, size in lengths.items() if size > most) for most in (250, 300)}
    return {
        "fmt: skip in all *.py": sum(skips_of(path.read_text()) for path in code),
        f"lines past {MOST} in lattice and samplers": long_lines(own.values())[0],
        f"lines past {MOST} in all *.py": sum(long_lines(code)),
        f"lines past {MOST} in *.md, *.rst, tables aside": past,
        f"rows of tables past {MOST}": rows,
        **{f"files over {most} lines in lattice and samplers": names for most, names in over.items()},
    }


def shown(value) -> str:
    """A list as its length, with its members where they are few."""
    if not isinstance(value, list):
        return f"{value}"
    return f"{len(value)}" + (": " + ", ".join(map(str, value)) if 0 < len(value) <= FEW else "")


def main(options) -> None:
    tree = Path(options.tree).resolve()
    maps = maps_of(tree)
    figures = {title: map_figures(drawn) for title, drawn in maps.items()}
    figures |= walk_figures(tree, maps[f"{WHOLE}, by module"].floor, maps[WIDE].floor)
    figures |= {**text_figures(tree), "files": file_figures(tree)}
    for title, rows in figures.items():
        print(title, *(f"    {name:<48}{shown(value)}" for name, value in rows.items()), sep="\n")
    if options.json:
        # No path of this machine goes into the record, so the command is written without its options.
        environment = {
            "date": datetime.date.today().isoformat(),
            "commit": git(tree, "describe", "--always", "--dirty") if (tree / ".git").exists() else "",
            "command": "python -m benchmarks house",
            "versions": {"python": platform.python_version()},
        }
        record = {"environment": environment, "benchmark": "house", "figures": figures}
        Path(options.json).write_text(json.dumps(record, indent=1) + "\n")
