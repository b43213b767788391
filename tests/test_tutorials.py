"""The tutorials run as they stand, print what they show, and what they say of it holds."""

import re
from pathlib import Path

import numpy as np
import pytest

from docs.tutorials import pages
from tests import oracle
from tests.compare import assert_close

NUMBER = re.compile(r"(\d+(?:\.\d+)?)")


def assert_alike(printed: str, shown: str) -> None:
    """The same words; numbers within 5 % or one unit of the last digit shown, for BLAS libraries round differently."""
    ours, theirs = NUMBER.split(printed), NUMBER.split(shown)
    assert ours[::2] == theirs[::2], f"prints\n{printed}\nshows\n{shown}"
    for one, other in zip(ours[1::2], theirs[1::2]):
        unit = 10.0 ** -len(other.partition(".")[2])
        assert abs(float(one) - float(other)) <= max(unit, 0.05 * float(other)) * (1 + 1e-9), (
            f"prints {one}, shows {other}"
        )


def run(page: str) -> dict:
    names, printed, shown = pages.run(page)
    assert shown
    for pair in zip(printed, shown, strict=True):
        assert_alike(*pair)
    return names


def test_the_posteriors_of_the_lattice_are_those_of_the_oracle():
    names = run("lattice.md")
    for name in ("untrained", "trained"):
        logits = names[name]
        true, naive = [], []
        for dtype, told in ((np.longdouble, true), (np.float64, naive)):
            _, blank, label = oracle.arc_scores(logits.astype(dtype), names["targets"])
            told += [sum(oracle.arc_posteriors(blank, label, "rnnt")[1:])]
        loss = -oracle.arc_posteriors(*oracle.arc_scores(logits, names["targets"])[1:], "rnnt")[0]
        assert_close(names["visited"](logits), true[0], naive[0], scale=abs(loss), what=name)


def test_the_letters_of_the_trained_lattice_are_emitted_when_they_are_due():
    names = pages.run("lattice.md").names
    expected, confidence = names["emission"](names["trained"])
    assert np.abs(expected - names["due"]).max() < 1.5 and confidence.min() > 0.5
    label = names["posteriors"](names["trained"])[1]
    np.testing.assert_allclose(expected, (np.arange(names["T"])[:, None] * label).sum(axis=0)[: names["U"]])
    np.testing.assert_array_equal(confidence, label[:, : names["U"]].max(axis=0))


@pytest.mark.slow
def test_memory():
    names = run("memory.md")
    limit = names["limit"] / 1e6
    report, measured = names["report"], names["measured"]
    assert report.workspace_bytes <= names["limit"]
    for B, most in measured.items():
        gradients = 4e-6 * (B * (names["T"] + names["U"] + 1) * names["H"] + names["V"] * (names["H"] + 1))
        assert most <= limit + gradients + 0.5
    assert measured[64] < names["in_place"][8] / 2
    losses = list(names["losses"].values())
    for loss in losses[1:]:
        np.testing.assert_allclose(loss, losses[0], rtol=1e-6)


def test_training():
    names = run("training.md")
    assert np.mean(names["right"]) > 0.95 and names["losses"][-1] < 0.05 < 1 < names["losses"][0]
    (loop,) = (
        text for _, text in pages.BLOCK.findall((pages.HERE / "training.md").read_text()) if "losses = []" in text
    )
    body = [line for line in loop.splitlines() if line.startswith("    ") and line.strip() not in (")", "")]
    assert len(body) <= 10


def test_pictures_are_small_and_each_page_has_some():
    pictures = {path.stem for path in pages.HERE.glob("*.png")}
    for page in pages.HERE.glob("*.md"):
        shown = set(re.findall(r"!\[[^]]+\]\((\w+)\.png\)", page.read_text()))
        assert bool(shown) == (page.name != "index.md") and shown <= pictures
        pictures -= shown
    assert not pictures
    assert all(path.stat().st_size <= 100_000 for path in pages.HERE.glob("*.png"))


@pytest.mark.parametrize("page", [*sorted(path.name for path in pages.HERE.glob("*.md")), "../migrating.md"])
def test_links_lead_somewhere(page):
    text = (pages.HERE / page).read_text()
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        assert ((pages.HERE / page).parent / link).resolve().exists(), link


def test_the_index_lists_every_page():
    listed = re.findall(r"^- \[.*\]\((\w+\.md)\)", (pages.HERE / "index.md").read_text(), re.M)
    assert sorted([*listed, "index.md"]) == sorted(path.name for path in pages.HERE.glob("*.md"))


def test_pictures_are_drawn_by_the_script(monkeypatch, tmp_path):
    pytest.importorskip("matplotlib")
    from docs.tutorials import pictures

    assert {path.stem for path in pages.HERE.glob("*.png")} == set(pictures.PICTURES)
    monkeypatch.setattr(pictures, "HERE", Path(tmp_path))
    pictures.PICTURES["lattice"]()
    pictures.PICTURES["half_precision"]()
    assert {path.stem for path in tmp_path.iterdir()} == {"lattice", "half_precision"}
