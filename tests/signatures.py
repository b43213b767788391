"""The contract of a public function in one line: names, order and defaults."""

import inspect
from collections.abc import Callable


def signature(function: Callable) -> str:
    """Arguments as they would be written without types, `*` before those that are keyword-only."""
    parameters = [p.replace(annotation=p.empty) for p in inspect.signature(function).parameters.values()]
    plain = [str(p) for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    keyword = [str(p) for p in parameters if p.kind is p.KEYWORD_ONLY]
    assert len(plain) + len(keyword) == len(parameters)
    return " ".join([*plain, "*", *keyword])
