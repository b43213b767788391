"""What the README and the examples say is run."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import lattice
import samplers
from benchmarks import table

ROOT = Path(__file__).resolve().parent.parent


def python_blocks(page, *, torch=False):
    """What a page shows in Python, with torch or without."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.S)
    return [block for block in blocks if ("import torch" in block) == torch]


RUN = ("README.md", "docs/dropout.md", "docs/sampled_softmax.md", "docs/three_stage.md", "docs/pruning.md")


@pytest.mark.parametrize("page", RUN)
def test_every_python_block_runs(page):
    blocks, names = python_blocks(page), {}
    for block in blocks:
        exec(block, names)
    assert blocks and np.isfinite(names["loss"]).all()


def test_the_first_block_of_the_readme_is_eight_lines():
    (block,) = python_blocks("README.md")
    assert len(block.replace("\n\n", "\n").splitlines()) == 8 and block.startswith(
        "import numpy as np\nimport lattice\n"
    )


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_commands_of_the_shell_exist(page):
    """What they do is run by CI from a bare clone: make by name, pip in test-wheel."""
    lines = [
        line for block in re.findall(r"```sh\n(.*?)```", (ROOT / page).read_text(), re.S) for line in block.splitlines()
    ]
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for line in lines:
        program, name = line.partition("#")[0].split()[:2]
        if program == "make":
            assert name in targets, line
        else:
            assert (program, name) == ("pip", "install") and set(re.findall(r"\[(.*?)\]", line)) <= set(extras), line
    assert lines


@pytest.mark.parametrize("page", table.PAGES, ids=lambda page: page.name)
def test_tables_are_those_of_the_records(page):
    text = page.read_text()
    assert table.filled(text, table.PAGES[page]) == text, "python -m benchmarks table"
    assert all(f"<!-- table {name} -->" in text for name in table.PAGES[page])


def test_the_table_of_helpers_names_every_helper():
    tests = ROOT / "tests"
    rows = re.findall(r"^\| (`.+?`) \|", (tests / "README.md").read_text().partition("## Helpers")[2], re.M)
    files = {path.name for path in tests.glob("*.py")} - {"__init__.py"}
    helpers = {name for name in files if not name.startswith("test_")}
    folders = {f"{path.name}/" for path in tests.iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    assert sorted(name for row in rows for name in re.findall(r"`(.+?)`", row)) == sorted(helpers | folders)


def test_a_gpu_record_fills_its_table(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "RESULTS", tmp_path)
    assert table.MISSING in table.gpu_table()
    rows = {"untrained, 256 MiB": {"ratio": 1.1}, "trained-like, 256 MiB": {"ratio": 0.4}}
    record = {
        "benchmark": "gpu",
        "environment": {"date": "2030-01-01", "gpu": [{"name": "some GPU"}]},
        "tests": {"passed": 7},
        "sections": {"joint float32": {"default float32": {"rows": rows}}},
    }
    (tmp_path / "record.json").write_text(json.dumps(record))
    assert "some GPU" in table.gpu_table() and "| 1.10 | not measured |" in table.gpu_table()


def test_examples_are_under_100_lines_and_listed():
    files = sorted((ROOT / "examples").glob("*.py"))
    assert all(len(path.read_text().splitlines()) < 100 for path in files)
    programs = [path.name for path in files if path.name != "__init__.py"]
    assert re.findall(r"^\| `(\w+\.py)` \|", (ROOT / "examples" / "README.md").read_text(), re.M) == programs


def test_studies_are_listed_and_say_what_they_take():
    programs = {path.parent.name: path.read_text() for path in (ROOT / "studies").glob("*/__main__.py")}
    listed = re.findall(r"^\| `.*python -m studies\.(\w+)` \|", (ROOT / "studies" / "README.md").read_text(), re.M)
    assert sorted(listed) == sorted(programs)
    for name, text in programs.items():
        says = ast.get_docstring(ast.parse(text))
        assert f"python -m studies.{name}" in says and re.search(r"\btakes? .*(minute|second|hour)", says), name
        assert "pip install -e" in says, name


WITHOUT_MPI = """import runpy, sys
sys.modules["mpi4py"] = None
runpy.run_module("studies.data_parallel", {}, "__main__")
"""


@pytest.mark.parametrize("option, code", [("--help", 0), (None, 1)])
def test_the_mpi_study_says_what_it_needs(option, code):
    command = [sys.executable, "-c", WITHOUT_MPI, *filter(None, [option])]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment())
    assert done.returncode == code and 'pip install -e ".[test-mpi]"' in (done.stderr if code else done.stdout)
    assert "Traceback" not in done.stderr


def test_the_first_example_runs_and_is_short():
    path = ROOT / "examples" / "01_loss_and_gradients.py"
    assert len(path.read_text().splitlines()) < 60
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, cwd=ROOT, env=environment())
    assert done.returncode == 0 and done.stderr == "" and "in 1 MiB" in done.stdout


ALONE = ("--shape", "smoke", "--without", "all", "--rounds", "1")


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ("joint", *ALONE),
        ("sharpness", *ALONE),
        ("logits", *ALONE),
        ("pruned", *ALONE),
        ("memory", "--case", "smoke"),
        ("peer_memory", "--shape", "smoke", "--only", "lattice, 64 MiB"),
        ("samplers", "--shape", "smoke", "--rounds", "1"),
        ("decode", "--shape", "smoke", "--rounds", "1"),
        ("three_stage", "--shape", "smoke", "--rounds", "1"),
        ("tf32", "--shape", "smoke"),
        ("hidden", "--shape", "smoke"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_benchmarks_run_at_smoke_size(tmp_path, arguments):
    record = tmp_path / "record.json"
    command = [sys.executable, "-m", "benchmarks", *arguments, "--json", str(record)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment())
    assert done.returncode == 0, done.stderr
    assert '"commit"' in record.read_text() and f'"benchmark": "{arguments[0]}"' in record.read_text()


def test_the_library_prints_nothing(capfd):
    lattice.warm_up()
    assert capfd.readouterr() == ("", "")


def test_public_functions_are_documented():
    for package in (lattice, samplers):
        for name in package.__all__:
            assert (getattr(package, name).__doc__ or "").strip(), name


def environment():
    return {**os.environ, "PYTHONPATH": str(ROOT)}
