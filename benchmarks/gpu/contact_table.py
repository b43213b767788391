"""What the first contact has shown, in a line a step: name, state, seconds, the numbers that matter."""

from . import tables

WIDTH = 150
MOST = 9_000
"""Characters that are printed at the end."""
FAILURES = 25
SHORT = {"float32": "f32", "bfloat16": "bf16"}


def at(node, *path):
    """A value in a result, None where any part of the path is missing."""
    for key in path:
        node = node.get(key) if isinstance(node, dict) else None
    return node


def short(name: str) -> str:
    for long, word in SHORT.items():
        name = name.replace(long, word)
    return name


def number(value, factor: float = 1, form: str = ".3g") -> str:
    return "-" if value is None else format(value * factor, form)


def environment(found: dict) -> str:
    known = at(found, "env") or {}
    names = [f"{gpu['name']}, driver {gpu['driver_version']}" for gpu in known.get("gpu", ())]
    wanted = ("numba", "numba-cuda", "cupy-cuda13x", "cupy-cuda12x", "numpy", "cuda-bindings", "torch")
    versions = [f"{name} {known['versions'][name]}" for name in wanted if name in known.get("versions", ())]
    nvvm = f"{len(known.get('nvvm', ()))} libnvvm"
    return "; ".join(
        [*(names or ["nvidia-smi names no GPU"]), f"{known.get('cores')} cores", ", ".join(versions), nvvm]
    )


def contact(found: dict) -> str:
    attempts = found.get("attempts") or {}
    way = next((name for name, attempt in attempts.items() if attempt.get("launched")), None)
    if way is None:
        return "nothing launches: " + "; ".join(f"{name}: {reason(attempt)}" for name, attempt in attempts.items())
    parts = attempts[way]
    times = ", ".join(
        f"{part} {parts[part]:.2g}" for part in ("compile", "load", "launch", "wait", "again") if part in parts
    )
    checks = found.get("contact") or {}
    said = [
        f"{dtype} {number(at(checks, f'oracle {dtype}', 'joint'), form='.0e')}" for dtype in ("float32", "bfloat16")
    ]
    if "dropout" in checks:
        said.append(f"dropout {number(at(checks, 'dropout', 'ratio'))} times the time")
    wrong = [name for name, case in checks.items() if isinstance(case, dict) and "error" in case]
    return f"{way}: {times} s; oracle {', '.join(said)}" + (f"; wrong: {', '.join(wrong)}" if wrong else "")


def tested(found: dict) -> str:
    return "; ".join(f"{name}: {counts(result)}" for name, result in found.items())


def counts(result: dict) -> str:
    if "found" in result:
        return f"{result['found']} errors"
    if "exit_code" not in result:
        return reason(result)
    words = [f"{result[word]} {word}" for word in ("passed", "failed", "errors", "skipped") if word in result]
    return ", ".join(words) or reason(result)


def headline(found: dict) -> str:
    cases = tables.cases(found.get("headline") or {})
    return "; ".join(f"{short(name)} {number(case.get('seconds'))} s" for name, case in cases.items() if name) or "-"


def device(found: dict) -> str:
    known = found.get("device") or {}
    rates = at(known, "cublas", "rows", "bfloat16 to float32") or {}
    products = "/".join(number(rate, 1e-12, ".0f") for rate in rates.values())
    rows = at(known, "recursion", "rows") or {}
    steps = ", ".join(f"{name} {number(row.get('step'), 1e6)}" for name, row in rows.items())
    copy = number(at(known, "copy", "bandwidth"), 1e-9, ".0f")
    return f"copy {copy} GB/s; bf16 products {products or '-'} TFLOP/s; a step of the recursion {steps or '-'} us"


def stages(found: dict) -> str:
    said = []
    for name, case in tables.cases(next(iter(found.values()), {})).items():
        rows = {row: values for row, values in (case.get("rows") or {}).items() if row != "all, watched"}
        if rows:
            most = max(rows, key=lambda row: rows[row].get("share", 0))
            share = number(rows[most].get("share"), 100, ".0f")
            said.append(f"{short(name)} {number(case.get('seconds'), 1e3)} ms, most {most} {share} %")
    return "; ".join(said) or "-"


def profile(found: dict) -> str:
    launches = at(found, "ncu", "launches") or []
    return f"{len(launches)} launches: " + ", ".join(dict.fromkeys(launch["kernel"] for launch in launches))


def logits(found: dict) -> str:
    cases = tables.cases(found.get("logits") or {})
    ratios = [
        f"{short(name)} {number(at(case, 'rows', 'out=logits', 'ratio'))}" for name, case in cases.items() if name
    ]
    return f"in copies: {', '.join(ratios) or '-'}"


def joint(found: dict) -> str:
    said = []
    for name, case in tables.cases(next(iter(found.values()), {})).items():
        ratios = [number(at(case, "rows", f"{kind}, 1 GiB", "ratio")) for kind in ("untrained", "trained-like")]
        said += [f"{short(name)} {'/'.join(ratios)}"] if name else []
    return f"in three products, untrained/trained: {', '.join(said) or '-'}"


FIGURES = {
    "env": environment,
    "contact": contact,
    "kernels": tested,
    "headline": headline,
    "device": device,
    "stages": stages,
    "ncu": profile,
    "logits": logits,
    "joint": joint,
    "tf32": joint,
    "together": tested,
    "tests": tested,
}


def reason(node) -> str:
    """Why something is missing or wrong: the first reason found."""
    if not isinstance(node, dict):
        return ""
    for key in ("error", "cut", "no_gpu", "not_measured"):
        if isinstance(node.get(key), str):
            return " ".join(node[key].split())
    return next(filter(None, map(reason, node.values())), "")


def line(name: str, step: dict) -> str:
    """A step's line in the table."""
    if step["state"] == "not run":
        said = step["reason"]
    else:
        try:
            said = FIGURES.get(name.removeprefix("again "), tested)(step["results"])
        except Exception as error:
            # The record has it all; a table that cannot be made must not take the rest along.
            said = f"{type(error).__name__}: {error}"
        if step["state"] != "ok":
            said = f"{said} | {reason(step['results'])}"
    return f"{name:14}{step['state']:8}{step.get('seconds', 0):5.0f} s  {said}"[:WIDTH]


def table(record: dict) -> str:
    """At most 20 lines."""
    lines = [line(name, step) for name, step in record["steps"].items()]
    return "\n".join([f"call {record['call']}: {record['said']} (step, state, time, what was found)", *lines])


def failures(record: dict) -> str:
    """The tests that failed, a line each."""
    found = [
        (failure["id"], failure["message"]) for step in record["steps"].values() for failure in step.get("failures", ())
    ]
    lines = [
        f"FAILED {name}: {' '.join(message.splitlines()[-2:])}"[: WIDTH + 100] for name, message in found[:FAILURES]
    ]
    return "\n".join([*lines, f"... and {len(found) - FAILURES} more"][: len(lines) + (len(found) > FAILURES)])


def closing(record: dict) -> str:
    """What is printed at the end: failures, then the table, within `MOST` characters."""
    text = table(record)
    return f"{failures(record)[: MOST - len(text)]}\n{text}".strip()


def details(record: dict) -> str:
    """Tables of what was measured, for the folder."""
    texts = []
    for step in record["steps"].values():
        for name in DETAILED & step.get("results", {}).keys():
            try:
                texts.append(tables.sections_text({name: step["results"][name]}))
            except Exception as error:
                # Of a section that broke off there may be too little for a table; the record has it.
                texts.append(f"{name}: {type(error).__name__}: {error}")
    return "\n".join(texts)


DETAILED = {"device", "headline", "stages", "logits", "joint", "tf32"}
