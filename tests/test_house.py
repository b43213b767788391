"""The counts of `benchmarks.house` on small made-up trees, and the command on this one."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import house, house_map, house_walks

ROOT = Path(__file__).resolve().parent.parent
DOC = '"""What it is."""\n'
TREE = {
    "lattice/__init__.py": f"{DOC}from .door import act\nfrom .other_door import turn\n",
    "lattice/door.py": "from . import stage, other_door\nfrom .wing.part import work\n",
    "lattice/other_door.py": "import numpy\n\n\ndef turn():\n    from lattice.leaf import grow\n",
    "lattice/stage.py": "def late():\n    from .wing import part\n",
    "lattice/wing/__init__.py": DOC,
    "lattice/wing/part.py": "from ..kernels.row import fill\nfrom . import pair\n",
    "lattice/wing/pair.py": "import lattice.wing.part\n",
    "lattice/leaf.py": "x = 1\n",
    "lattice/kernels/__init__.py": DOC,
    "lattice/kernels/row.py": "from ..leaf import x\n",
    "samplers/__init__.py": "from .draw import choose\n",
    "samplers/draw.py": "from lattice import act\nfrom lattice.leaf import x\n",
}


def written(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def arrows(text):
    return {tuple(pair.split(">")) for pair in text.split()}


def test_a_map_by_module(tmp_path):
    drawn = house_map.map_of(written(tmp_path, TREE), ("lattice",))
    assert drawn.rooms == {"lattice"} | {
        f"lattice.{name}" for name in ("door", "other_door", "stage", "leaf", "wing.part", "wing.pair", "kernels.row")
    }
    assert drawn.arrows == arrows(
        "lattice>lattice.door lattice>lattice.other_door lattice.door>lattice.stage lattice.door>lattice.other_door "
        "lattice.door>lattice.wing.part lattice.other_door>lattice.leaf lattice.stage>lattice.wing.part "
        "lattice.wing.part>lattice.kernels.row lattice.wing.part>lattice.wing.pair lattice.wing.pair>lattice.wing.part "
        "lattice.kernels.row>lattice.leaf"
    )
    assert drawn.upward == arrows("lattice.kernels.row>lattice.leaf")
    assert drawn.door_to_door == arrows("lattice.door>lattice.other_door")
    assert drawn.circles == {frozenset({"lattice.wing.part", "lattice.wing.pair"})}
    # leaf, row, the circle, stage, door, lattice
    assert drawn.floor["lattice"] == 6 and drawn.floor["lattice.leaf"] == 1
    assert drawn.floor["lattice.wing.part"] == drawn.floor["lattice.wing.pair"] == 3


def test_a_map_at_first_sight(tmp_path):
    drawn = house_map.map_of(written(tmp_path, TREE), room_of=house_map.at_first_sight)
    assert drawn.rooms == {"samplers", "lattice"} | {
        f"lattice.{name}" for name in ("door", "other_door", "stage", "leaf", "wing", "kernels")
    }
    assert arrows("samplers>lattice samplers>lattice.leaf lattice.wing>lattice.kernels") < drawn.arrows
    assert len(drawn.arrows) == 11 and drawn.floor["samplers"] == 7
    assert drawn.upward == arrows("lattice.kernels>lattice.leaf") and not drawn.circles
    without = house_map.map_of(tmp_path, ("lattice",), without=("lattice.kernels",))
    assert "lattice.leaf" in without.rooms and "lattice.kernels.row" not in without.rooms


@pytest.mark.parametrize(
    ("file", "line", "arrow"),
    [
        ("lattice/leaf.py", "from samplers import choose", "lattice.leaf>samplers"),
        ("lattice/leaf.py", "from .door import act", "lattice.leaf>lattice.door"),
        ("lattice/door.py", "from lattice import turn", "lattice.door>lattice"),
        ("samplers/mean.py", "from .draw import choose", "samplers.mean>samplers.draw"),
    ],
)
def test_an_arrow_that_runs_up_is_found(tmp_path, file, line, arrow):
    tree = written(tmp_path, TREE)
    before = house_map.map_of(tree, house_map.PACKAGES[:2]).upward
    written(tree, {file: line})
    assert house_map.map_of(tree, house_map.PACKAGES[:2]).upward - before == arrows(arrow)


TEXT = '''"""A docstring
of two lines."""

# A comment apart.
LIMIT = 3  # a comment behind code
"""What the limit is."""
url = "no # comment"


def first(a, /, b, *rest, c=None, **others):  # fmt: skip
    """One line."""
    text = """code

# that is a string"""
    return text  # noqa: F841


class Thing:
    async def second(self):
        # type: ignore
        pass
'''


def test_lines_comments_and_functions(tmp_path):
    prose = "|" + "x" * 120 + "\n" + "y" * 121 + "\n" + "z" * 120
    path = written(tmp_path, {"lattice/text.py": TEXT, "notes.md": prose}) / "lattice/text.py"
    assert house.count([path]) == {"code": 9, "docstrings": 4, "comments": 2, "skips": 1}
    assert house.count([path, path])["comments"] == 4
    assert house.functions_of({"lattice.text": path}) == [("lattice.text.first", 6, 5), ("lattice.text.second", 3, 1)]
    assert house.files_of(tmp_path, ".md", ".rst") == [tmp_path / "notes.md"]
    assert house.long_lines([tmp_path / "notes.md"]) == (1, 1)
    assert house.share([*range(1, 11)], 90) == 9 and house.share([5, 1, 3], 50) == 3


UPPER = """
def enter(x):
    def back(array):
        return None
    copied = x + 1
    below.work(x[1:], back)
    below.work(copied, back)
    for _ in range(3):
        below.look({"a": (x,), "b": 1}, copied)
        below.look({"a": x}, copied)
"""
LOWER = """
def work(array, back):
    back(array)

def look(table, other):
    pass
"""


def test_a_walk_goes_where_the_parameter_goes(tmp_path):
    below = SimpleNamespace()
    spaces = {"lattice/wing/lower.py": vars(below), "lattice/upper.py": {"below": below}}
    for (name, space), text in zip(spaces.items(), (LOWER, UPPER)):
        exec(compile(text, tmp_path / name, "exec"), space)
    x = np.arange(4.0)
    walk = house_walks.followed(tmp_path, lambda: spaces["lattice/upper.py"]["enter"](x), x)
    upper, lower = "lattice.upper", "lattice.wing.lower"
    # `work` calls back; of `look`, the array two levels down is not seen, and the loop is walked once.
    assert walk.stays == [upper, lower, upper, lower, upper, lower, upper]
    assert walk.calls == [(upper, lower), (lower, upper), (upper, lower)]
    assert house.climbs(walk.stays[:-1], {upper: 2, lower: 1}) == 2


def test_labels_are_followed_into_copies(tmp_path):
    follower = house_walks.Follower(tmp_path, np.array([[41, 57], [46, 60]], np.int32))
    assert follower.holds(np.array([0, 60, 57, 46, 41], np.int64)) and follower.holds((1, np.array([41, 46, 57, 60])))
    assert not follower.holds(np.array([41, 46, 57])) and not follower.holds(np.array([41.0, 46.0, 57.0, 60.0]))


@pytest.mark.skipif(not (ROOT / "lattice").exists(), reason="the source is not beside the tests")
def test_the_command_measures_this_tree(tmp_path, capsys):
    house.main(SimpleNamespace(tree=str(ROOT), json=str(tmp_path / "record.json")))
    text, printed = (tmp_path / "record.json").read_text(), capsys.readouterr().out
    figures = json.loads(text)["figures"]
    assert str(ROOT) not in text and all(title in printed for title in figures)
    for name in (
        "encoder through joint_transducer_loss_and_grad",
        "logits through transducer_loss_and_grad",
        "targets through samplers.sample_vocabulary",
    ):
        walk = figures[name]
        assert walk["stays"][0] == walk["stays"][-1]
        assert 5 < len(walk["rooms"]) < len(walk["stays"]) and 5 < walk["climbs"] < len(walk["stays"])
    whole = figures["lattice and samplers, by module"]
    assert whole["floors"] < whole["rooms"] < whole["arrows"] and whole["circles"] == []
