"""The gpu benchmark's record as text, short enough for the end of a log."""

LOGITS = {
    "ms": ("seconds", 1e3),
    "ratio": ("ratio", 1),
    "min": ("ratio_min", 1),
    "max": ("ratio_max", 1),
    "of copy": ("fraction", 1),
    "traffic": ("traffic_fraction", 1),
    "host ms": ("host", 1e3),
    "peak MB": ("peak", 1e-6),
}
CALLS = {heading: LOGITS[heading] for heading in ("ms", "ratio")}
JOINT = {
    "GEMMs ms": ("gemms", 1e3),
    "TFLOP/s": ("flops", 1e-12),
    "64 MiB": ("64 MiB", 1),
    "256 MiB": ("256 MiB", 1),
    "1 GiB": ("1 GiB", 1),
    "occupied": ("occupied", 1),
    "host ms": ("host", 1e3),
    "loss": ("loss only", 1),
    "t.audio": ("torchaudio", 1),
    "its MB": ("torchaudio peak", 1e-6),
}
STAGES = {
    "ms": ("seconds", 1e3),
    "share": ("share", 1),
    "calls": ("calls", 1),
    "GB/s": ("bandwidth", 1e-9),
    "TFLOP/s": ("flops", 1e-12),
}
HEADLINE = {
    "s": ("seconds", 1),
    "in GB": ("inputs", 1e-9),
    "peak GB": ("peak", 1e-9),
    "pool GB": ("pool", 1e-9),
    "proc. GB": ("process", 1e-9),
    "ctx GB": ("context", 1e-9),
    "apart": ("apart", 1),
}
LAUNCH = {"host us": ("host", 1e6), "sync us": ("synchronised", 1e6)}
RECURSION = {"ms": ("seconds", 1e3), "us a step": ("step", 1e6)}
PRODUCTS = ("h @ w.T", "g @ w", "g.T @ h")
SMALL_SHARE = 0.05


def table(title: str, rows: list[tuple[str, dict | None]], columns: dict[str, tuple[str, float]]) -> str:
    """Rows as text.

    `columns` holds, by heading, a key of the rows and the factor for its value. A row that is None makes a heading.
    """
    width = max((len(name) for name, row in rows if row is not None), default=0) + 1
    lines = [f"\n{title}", " " * width + "".join(f"{heading:>9}" for heading in columns)]
    for name, row in rows:
        values = [(row or {}).get(key) for key, _ in columns.values()]
        reason = (row or {}).get("error") or (row or {}).get("not_measured")
        if all(value is None for value in values):
            lines.append(f"{name:{width}} {reason.splitlines()[0][:100]}" if reason else name)
            continue
        cells = (None if value is None else value * factor for value, (_, factor) in zip(values, columns.values()))
        text = "".join(f"{'-' if cell is None else f'{cell:.3g}':>9}" for cell in cells)
        lines.append(f"{name:{width}}{text}" + (f"  {reason.splitlines()[0][:60]}" if reason else ""))
    return "\n".join(lines)


def cases(section: dict) -> dict[str, dict]:
    """The cases of a section; what befell it as a whole stands under an empty name."""
    found = {name: case for name, case in section.items() if isinstance(case, dict)}
    whole = {key: section[key] for key in ("error", "not_measured") if key in section}
    return {**found, "": whole} if whole else found


def spread(section: dict, least: float = 0.0) -> list[tuple[str, dict | None]]:
    """All rows of all cases, each case under a heading; those with less than a share are left out."""
    found = []
    for name, case in cases(section).items():
        if "rows" not in case:
            found.append((name or "all", case))
            continue
        found.append((name, None))
        found += [(f"  {label}", row) for label, row in case["rows"].items() if row.get("share", 1) >= least]
    return found


def joint_rows(section: dict) -> list[tuple[str, dict]]:
    """Two rows a case: untrained and trained-like, ratios at each limit."""
    found = []
    for name, case in cases(section).items():
        if "rows" not in case:
            found.append((name or "all", case))
            continue
        rows = case["rows"]
        for kind in ("untrained", "trained-like"):
            inside = {
                key.removeprefix(f"{kind}, "): inner for key, inner in rows.items() if key.startswith(f"{kind}, ")
            }
            errors = [inner["error"] for inner in (case, *inside.values()) if "error" in inner]
            row = {
                **{key: inner.get("ratio") for key, inner in inside.items()},
                "gemms": rows["three GEMMs"].get("seconds"),
                "flops": rows["three GEMMs"].get("flops"),
                "occupied": case.get(f"{kind}, occupied"),
                "host": inside.get("256 MiB", {}).get("host"),
                "torchaudio peak": inside.get("torchaudio", {}).get("peak"),
                **({"error": errors[0]} if errors else {}),
            }
            found.append((f"{name}, {kind}", row))
    return found


def tests_line(tests: dict) -> str:
    counts = ", ".join(f"{tests[word]} {word}" for word in ("passed", "failed", "errors", "skipped") if word in tests)
    state = "NOT RUN" if "not_measured" in tests else "FAILED" if "error" in tests else "passed"
    reason = tests.get("not_measured") or tests.get("error") or "all"
    return f"{state} ({reason}; {counts}; {tests.get('seconds', 0):.0f} s)"


def device_text(section: dict) -> str:
    names = ("properties", "copy", "cublas", "launch", "recursion")
    known, copy, cublas, launch, recursion = (section.get(name, {}) for name in names)
    lines = [
        f"\n{known.get('name')}: {known.get('multiprocessors')} multiprocessors, "
        f"capability {known.get('compute_capability')}, copy {copy.get('bandwidth', 0) / 1e9:,.0f} GB/s"
    ]
    products = list(next(iter(cublas.get("rows", {}).values()), ()))
    if products:
        lines.append(
            table(
                "cuBLAS, TFLOP/s",
                list(cublas["rows"].items()),
                dict(zip(PRODUCTS, ((name, 1e-12) for name in products))),
            )
        )
    if "rows" in launch:
        lines.append(table("a launch", list(launch["rows"].items()), LAUNCH))
    if "rows" in recursion:
        lines.append(
            table(f"alpha and beta, T={recursion['T']} U={recursion['U']}", list(recursion["rows"].items()), RECURSION)
        )
    lines += [f"{name or 'device'}: {case['error']}" for name, case in cases(section).items() if "error" in case]
    return "\n".join(lines)


def check_text(section: dict) -> str:
    lines = ["\nchecks"]
    for name, case in cases(section).items():
        said = ", ".join(
            f"{key} {value:.1e}" if isinstance(value, float) else f"{key} {value}"
            for key, value in case.items()
            if key not in ("took", "where")
        )
        lines.append(f"{name}: {said}")
    return "\n".join(lines)


def summary(results: dict) -> str:
    """The whole record in about 10,000 characters."""
    if "tools" in results:
        return "\n".join(f"{tool}: {row}" for tool, row in results["tools"].items())[-11_000:]
    tests = [f"\ntests/cuda: {tests_line(results['tests'])}", *results["tests"].get("last_lines", ())[-12:]]
    return "\n".join([*tests, sections_text(results["sections"])])


def sections_text(sections: dict) -> str:
    """Tables of the sections that have been measured."""
    parts, headlines = [], []
    for name, section in sections.items():
        if name == "check":
            parts.append(check_text(section))
        elif name == "device":
            parts.append(device_text(section))
        elif name.startswith("headline"):
            headlines += [(case or name, row) for case, row in cases(section).items()]
        elif name == "stages":
            parts.append(table("where the time goes (shares under 5 % left out)", spread(section, SMALL_SHARE), STAGES))
        elif name == "logits":
            parts.append(table("from logits, against one copy of them", spread(section), LOGITS))
        elif name in ("sampled", "three_stage"):
            parts.append(table(f"{name}, against the first row", spread(section), CALLS))
        else:
            parts.append(table(f"{name}, against three matrix products", joint_rows(section), JOINT))
    if headlines:
        parts.append(table("headline: B=1024 T=1000 U=100 V=1024 H=512, 3 GB", headlines, HEADLINE))
    return "\n".join(parts)
