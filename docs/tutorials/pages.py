"""Runs the blocks of a tutorial in order, as a reader would, and keeps what they print."""

import contextlib
import io
import re
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
BLOCK = re.compile(r"```(python|text)\n(.*?)```", re.S)


class Run(NamedTuple):
    """A page that has been run.

    names : dict, what the blocks leave behind.
    printed, shown : lists of str, one for each block of output: what came out, and what the page says.
    """

    names: dict
    printed: list[str]
    shown: list[str]


def run(page: str) -> Run:
    """Run `page`, the name of a Markdown file beside this one."""
    done, printed = Run({}, [], []), ""
    for kind, text in BLOCK.findall((HERE / page).read_text()):
        if kind == "text":
            done.printed.append(printed)
            done.shown.append(text)
            printed = ""
            continue
        assert not printed, f"{page} does not show what it prints: {printed!r}"
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile(text, page, "exec"), done.names)
        printed = out.getvalue()
    assert not printed, f"{page} does not show what it prints: {printed!r}"
    return done
