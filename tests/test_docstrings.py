"""What the docstrings of the public functions hold: every argument in its order, results, errors, memory, papers."""

import inspect
import re
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

import lattice
import samplers
from lattice.annotations import A, Array, Bounds

DOCS = Path(__file__).resolve().parent.parent / "docs"
PUBLIC = {name: getattr(package, name) for package in (lattice, samplers) for name in package.__all__}
FUNCTIONS = {name: found for name, found in PUBLIC.items() if inspect.isfunction(found)}
RETURNING = [name for name, found in FUNCTIONS.items() if inspect.signature(found).return_annotation is not None]
RECORDS = {name: found for name, found in PUBLIC.items() if hasattr(found, "_fields")}
OPTIONS = {name: found for name, found in PUBLIC.items() if is_dataclass(found)}
ARRAYS = [A, Array, Array | None, Bounds | None]
POINTER = re.compile(r"(?:[Aa]s in|[Aa]s|[Ww]hat) `(\w+)`")


def sections(documented):
    """The text of each section by its title; what comes before the first is the summary, under no title."""
    parts = re.split(r"^(\w[\w ]*)\n-{3,}\n", inspect.getdoc(documented), flags=re.M)
    assert len(set(parts[1::2])) == len(parts[1::2]), "a section twice"
    return dict(zip(["", *parts[1::2]], [parts[0], *parts[2::2]]))


def entries(text):
    """Names, type and description of each entry of a section."""
    for head, body in re.findall(r"^(\S.*)\n((?:(?: .*)?\n)*)", text.rstrip() + "\n", re.M):
        names, _, kind = head.partition(" : ")
        yield [name.strip(" *") for name in names.split(", ")], kind, inspect.cleandoc(body)


def parameters(name):
    """(parameter, type) of each parameter that is described, in the order of the docstring."""
    for names, kind, body in entries(sections(FUNCTIONS[name])["Parameters"]):
        if kind:
            yield from ((parameter, kind) for parameter in names)
            continue
        (pointed,) = re.findall(r"^As in `(\w+)`", body) or ["nothing"]
        if pointed == "nothing":
            assert body, f"{names} of {name} have neither a type nor a word"
            yield from ((parameter, "") for parameter in names)
            continue
        there = dict(parameters(pointed))
        for k, parameter in enumerate(names):
            if parameter == "...":
                order = list(there)
                between = order[order.index(names[k - 1]) + 1 : order.index(names[k + 1])]
                yield from ((left_out, there[left_out]) for left_out in between)
            else:
                yield parameter, there[parameter]


def resolved(name, title, there):
    """The text of a section, or of the one that it points to, once it says what is looked for."""
    text = sections(FUNCTIONS[name]).get(title, "")
    if re.search(there, text):
        return text
    for pointed in POINTER.findall(text):
        assert pointed in FUNCTIONS and pointed != name, f"{title} of {name} points to {pointed}"
        return resolved(pointed, title, there)
    return ""


@pytest.mark.parametrize("name", FUNCTIONS)
def test_parameters_are_those_of_the_signature_in_their_order(name):
    signature = inspect.signature(FUNCTIONS[name])
    assert [parameter for parameter, _ in parameters(name)] == list(signature.parameters)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_arrays_have_a_shape(name):
    annotations = inspect.signature(FUNCTIONS[name]).parameters
    for parameter, kind in parameters(name):
        if annotations[parameter].annotation in ARRAYS and kind:
            assert re.search(r"\(\w+(, ?\w+|,)|like `", kind), (parameter, kind)


@pytest.mark.parametrize("name", RETURNING)
def test_results_are_described_and_losses_have_a_unit(name):
    results = list(entries(sections(FUNCTIONS[name])["Returns"]))
    assert results and all(kind or names[0] in RECORDS for names, kind, _ in results)
    for (result, *_), _, body in results:
        if result in ("loss", "score", "certificate"):
            assert re.search(r"\bnats\b", body, re.I), result


@pytest.mark.parametrize("name", FUNCTIONS)
def test_errors_and_memory_are_stated(name):
    assert resolved(name, "Raises", r"(?m)^\w+Error\b[^`]*$")
    assert resolved(name, "Notes", r"[Aa]llocates .*(byte|kB|result|`workspace_bytes`|V logits)")


@pytest.mark.parametrize("name", RETURNING)
def test_papers_are_named_and_listed(name):
    papers = (DOCS / "api" / "papers.rst").read_text()
    references = resolved(name, "References", r"[A-Z]\w+ (et al\. |and \w+ )?\d{4}|`docs/\w+\.md`")
    assert references
    for number in re.findall(r"arXiv (\S+?)[.;,]?(?=\s|$)", references):
        assert f"arXiv {number}." in papers, number
    text = inspect.getdoc(FUNCTIONS[name])
    for paper in re.findall(r"\b[A-Z]\w+(?: et al\.| and [A-Z]\w+)? (?:19|20)\d\d\b", " ".join(text.split())):
        assert f"**{paper}**" in papers, paper
    for page in re.findall(r"docs/[\w-]+\.md", text):
        assert (DOCS.parent / page).is_file() and f"`{page}`" in text, page


@pytest.mark.parametrize("name", PUBLIC)
def test_names_in_backquotes_exist(name):
    known = {*PUBLIC, *(parameter for found in FUNCTIONS.values() for parameter in inspect.signature(found).parameters)}
    known |= {field for record in RECORDS.values() for field in record._fields}
    known |= {field.name for option in OPTIONS.values() for field in fields(option)}
    known |= {
        result
        for other in RETURNING
        for names, *_ in entries(sections(FUNCTIONS[other])["Returns"])
        for result in names
    }
    quoted = re.findall(r"`(.+?)`", inspect.getdoc(PUBLIC[name]))
    known |= {word for code in quoted if not code.isidentifier() for word in re.findall(r"\w+", code)}
    assert {code for code in quoted if code.isidentifier()} <= known
    for (other, *_), kind, _ in entries(sections(PUBLIC[name]).get("See Also", "")):
        assert other.removeprefix("samplers.") in FUNCTIONS and kind.endswith("."), other


@pytest.mark.parametrize("name", RECORDS)
def test_fields_of_records_are_described(name):
    described = [field for names, *_ in entries(sections(RECORDS[name])["Attributes"]) for field in names]
    assert described == list(RECORDS[name]._fields)


@pytest.mark.parametrize("name", OPTIONS)
def test_fields_of_options_are_described_and_refuse_bad_input(name):
    described = [field for names, *_ in entries(sections(OPTIONS[name])["Parameters"]) for field in names]
    assert described == [field.name for field in fields(OPTIONS[name])]
    assert sections(OPTIONS[name])["Raises"] and sections(OPTIONS[name])["References"]


def test_every_public_name_has_one_place_in_the_reference():
    pages = [path.read_text() for path in sorted((DOCS / "api").glob("*.rst"))]
    shown = [name for page in pages for name in re.findall(r"^\.\. auto(?:function|class):: (\w+)$", page, re.M)]
    assert sorted(shown) == sorted(PUBLIC)
    listed = re.findall(r"^   (\w+)$", (DOCS / "api" / "index.rst").read_text(), re.M)
    assert set(PUBLIC) <= set(listed)
