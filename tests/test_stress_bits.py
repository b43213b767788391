"""Of `python -m benchmarks stress bits`: 8 problems recorded and compared, and every way to differ told."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import lattice
import samplers
from benchmarks.stress import bits, bits_cases

RESULTS = {"Hypotheses", "JointGradients", "LatticeReport", "Posteriors", "SampledVocabulary", "Topology"}


def run(**changed):
    options = {"seed": 5, "only": None, "record": None, "against": None, "problems": None}
    return bits.run(SimpleNamespace(**options | changed))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    path = tmp_path_factory.mktemp("bits") / "record.json"
    assert run(record=str(path), problems=8)["failures"] == []
    return path


def changed(recorded, tmp_path, old, new):
    """A record that says something else."""
    text, path = recorded.read_text(), tmp_path / "changed.json"
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    return str(path)


def test_every_door_has_a_share():
    shares = {name: share for part in (bits_cases.SHARES, *bits_cases.LATER) for name, share in part.items()}
    assert set(shares) == set(bits_cases.MAKERS) == (set(lattice.__all__) | set(samplers.__all__)) - RESULTS
    assert len(bits_cases.TURNS) == bits.PROBLEMS and set(bits_cases.TURNS) == set(shares)


def test_a_record_equals_the_next_run(recorded):
    found = run(against=str(recorded))
    assert found["failures"] == []
    assert found["rows"]["all"] == {"problems": 8, "refused": found["rows"]["all"]["refused"], "differ": 0}
    digests = json.loads(recorded.read_text())["digests"]
    assert len(digests) == len(set(digests.values())) == 8


def test_a_flipped_digest_is_told(recorded, tmp_path, capsys):
    label, digest = list(json.loads(recorded.read_text())["digests"].items())[5]
    flipped = f"{int(digest, 16) ^ 1:064x}"
    found = run(against=changed(recorded, tmp_path, digest, flipped))
    assert found["failures"] == [f"{label}: other bits"]
    assert found["rows"]["all"]["differ"] == 1
    assert f"{label}: other bits" in capsys.readouterr().out
    assert run(against=changed(recorded, tmp_path, digest, flipped), problems=5)["failures"] == []


def test_a_problem_that_is_drawn_otherwise_is_told(recorded, tmp_path, capsys):
    found = run(against=changed(recorded, tmp_path, '"seed": 5', '"seed": 6'), problems=1)
    assert len(found["failures"]) == 1 and "drawn otherwise than 0 joint" in found["failures"][0]
    assert found["facts"]["seed"] == 6


def test_other_facts_are_told(recorded, tmp_path, capsys):
    run(against=changed(recorded, tmp_path, f'"numpy": "{np.__version__}"', '"numpy": "1.0"'), problems=1)
    assert f"numpy: {np.__version__}, in the record 1.0" in capsys.readouterr().out


def test_a_process_that_dies_is_told(recorded, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert run(against=str(recorded))["failures"] == ["the process ended with 1 after 0 calls"]
    path = tmp_path / "none.json"
    assert run(record=str(path), problems=8)["failures"] and not path.exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "--record FILE or --against FILE"),
        ({"record": "a", "against": "b"}, "not both"),
        ({"problems": 9}, "has 8"),
    ],
)
def test_wrong_options(recorded, options, said):
    if "problems" in options:
        options = options | {"against": str(recorded)}
    with pytest.raises(SystemExit, match=said):
        run(**options)


def test_a_digest_sees_every_bit():
    x = np.array([0.0, 1.0, np.nan], np.float32)
    other_nan = np.array([0, 0x3F800000, 0xFFC00001], np.uint32).view(np.float32)
    assert bits.hash_of(x) == bits.hash_of(x.copy()) == bits.hash_of(other_nan)
    others = [-x, np.nextafter(x, np.float32(2)), x.astype(np.float64), x.view(np.int32), x[None], x[:2], (x,), (x, x)]
    assert len({bits.hash_of(value) for value in [x, *others]}) == 1 + len(others)


def test_arguments_that_were_written_to_count():
    case, _, result, error = bits.call(0, 0)
    assert not error and bits.hash_of(result, case.arguments) == bits.entry(0, 0).digest
    case.arguments["targets"][0, 0] += 1
    assert bits.hash_of(result, case.arguments) != bits.entry(0, 0).digest


def test_one_problem_is_shown_by_its_outputs(capsys):
    assert run(only=3)["failures"] == []
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("3 ") and lines[-1].endswith("the arguments afterwards") and len(lines) > 2
