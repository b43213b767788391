"""The documentation site: the pages of docs/ as they stand, and the reference of both packages from their docstrings.

Built by `make docs` without a network; a warning is an error.
"""

import importlib.metadata
import os
import re
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms import SphinxTransform

import lattice
import samplers

ROOT = Path(__file__).resolve().parent.parent

project = "transducer-lattice"
version = release = importlib.metadata.version(project)

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]
nitpicky = True
smartquotes = False
add_function_parentheses = False
highlight_language = "none"  # indented blocks are formulas; fenced code names its language
myst_heading_anchors = 3

autodoc_typehints = "none"  # the docstrings say more: shapes, dtypes, units
autodoc_preserve_defaults = True
autosummary_generate = False
numpydoc_show_class_members = False
numpydoc_attributes_as_param_list = True
# tests/test_docstrings.py checks which parameters are described, and in which order: "encoder, ..., bounds" stands for
# many parameters.
numpydoc_validation_checks = {
    "GL01",
    "GL03",
    "GL05",
    "GL06",
    "GL07",
    "GL08",
    "GL10",
    "SS01",
    "SS03",
    "SS04",
    "RT01",
    "SA04",
}

html_theme = "pydata_sphinx_theme"
html_title = project
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_sidebars = {page: [] for page in ("index", "migrating", "examples", "studies", "benchmarks", "changelog")}
html_theme_options = {
    "header_links_before_dropdown": 8,
    "navbar_persistent": ["search-button"],
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": [],
    "footer_end": [],
}

PAGES = {
    "README.md": "index",
    "CHANGELOG.md": "changelog",
    "examples/README.md": "examples",
    "studies/README.md": "studies",
    "studies/data_parallel": "studies",
    "studies/three_stage": "studies",
    "benchmarks/README.md": "benchmarks",
    "benchmarks/results": "benchmarks",
}
"""What lies outside docs/ and has a page of the site."""

NAMES = {name: f"{package.__name__}.{name}" for package in (lattice, samplers) for name in package.__all__}
LINKS = (addnodes.pending_xref, addnodes.download_reference)


class Links(SphinxTransform):
    """Links lead from the file they stand in, as in the repository: to the page of a file, or else to the file."""

    default_priority = 100

    def apply(self, **kwargs) -> None:
        for link in list(self.document.findall(lambda node: isinstance(node, LINKS) and node["reftype"] == "myst")):
            target, _, anchor = link["reftarget"].partition("#")
            if link["refdomain"] == "doc":
                # A Markdown file that was found is named without its suffix, also where it is no page.
                target, anchor = f"{target}.md", link["reftargetid"]
            found = (Path(link.source).parent / target).resolve()
            if link["reftarget"] in self.env.found_docs or not found.exists():
                continue
            page, attributes = (
                PAGES.get(os.path.relpath(found, ROOT)) or self.env.path2doc(found),
                {"refdoc": self.env.docname},
            )
            attributes |= {"reftype": "myst", "refexplicit": link["refexplicit"]}
            if page in self.env.found_docs:
                attributes |= {"refdomain": "doc", "reftarget": page, "reftargetid": anchor or None}
                new = addnodes.pending_xref("", *link.children, **attributes)
            else:
                attributes |= {"refdomain": None, "reftarget": "/" + os.path.relpath(found, self.env.srcdir)}
                new = addnodes.download_reference("", "", *link.children, **attributes)
            new.source, new.line = link.source, link.line
            link.replace_self(new)


class Names(SphinxTransform):
    """What stands in backquotes is code; public names, pages and programs lead to their places."""

    default_priority = 100

    def apply(self, **kwargs) -> None:
        for code in list(self.document.findall(lambda node: isinstance(node, (nodes.literal, nodes.title_reference)))):
            inside = code.parent
            while inside is not None and not isinstance(inside, (nodes.title, nodes.reference, *LINKS)):
                inside = inside.parent
            new = nodes.literal(code.astext(), code.astext(), classes=code["classes"])
            code.replace_self(self.link(code.astext(), new) if inside is None else new)

    def link(self, text: str, code: nodes.literal) -> nodes.Element:
        attributes = {"refdoc": self.env.docname, "refwarn": True}
        if name := NAMES.get(re.sub(r"^(lattice|samplers)\.|\(.*\)$", "", text)):
            attributes |= {"refdomain": "py", "reftype": "obj", "reftarget": name, "refexplicit": True}
            return addnodes.pending_xref("", code, **attributes)
        if page := re.fullmatch(r"docs/(.+)\.md", text):
            attributes |= {"refdomain": "std", "reftype": "doc", "reftarget": f"/{page[1]}", "refexplicit": False}
            return addnodes.pending_xref("", code, **attributes)
        for path in (ROOT / text, ROOT / "examples" / text, ROOT / "studies" / text):
            if path.suffix == ".py" and path.is_file():
                attributes |= {"refdomain": None, "reftype": "download"}
                attributes["reftarget"] = "/" + os.path.relpath(path, self.env.srcdir)
                return addnodes.download_reference("", "", code, **attributes)
        return code


def add_contents(app, docname: str, source: list[str]) -> None:
    """The pages that a list of pages links to are its contents, in the same order."""
    if docname in ("guide", "tutorials/index") and "{toctree}" not in source[0]:
        pages = re.findall(r"\]\(([\w-]+)\.md\)", source[0])
        source[0] += "\n".join(["\n```{toctree}", ":hidden:", "", *pages, "```", ""])


def setup(app) -> None:
    app.connect("source-read", add_contents)
    app.add_transform(Links)
    app.add_transform(Names)
