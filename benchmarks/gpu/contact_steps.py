"""The steps of both calls of the first contact, in the order of what would be missed most, with the seconds of each."""

from typing import NamedTuple

from .contact_commands import FEW_THREADS, Command, Probe, Profile, Sanitizer, Section, Tests

TOTAL = {1: 400.0, 2: 360.0}
"""Seconds of a call, all told."""
AGAIN = 40.0
"""Seconds for all that failed in the call before."""
KERNELS, DOORS = "tests/cuda/test_kernels.py", "tests/cuda/test_doors.py"


class Step(NamedTuple):
    """Commands that run side by side, and the most seconds that they may take.

    `seconds` None is what is left. Steps with `again` share `AGAIN`. Steps with `needs_gpu` do not run without a GPU,
    and steps with a `reason` never run.
    """

    name: str
    seconds: float | None
    commands: dict[str, Command]
    again: bool = False
    needs_gpu: bool = True
    reason: str = ""


def section(name: str, seconds: float, *arguments: str, **environment: str) -> Step:
    return Step(name, seconds, {name: Section(arguments, environment)})


def tests(workers: int, *arguments: str) -> Tests:
    return Tests((str(workers), *arguments), FEW_THREADS, modules=("pytest",))


def sanitizer(tool: str) -> Sanitizer:
    return Sanitizer((tool,), FEW_THREADS, modules=("pytest",), programs=("compute-sanitizer",))


ENVIRONMENT = Step("env", 10, {"env": Probe(("environment",))}, needs_gpu=False)
FIRST = (
    ENVIRONMENT,
    section("contact", 45, "contact"),
    Step("kernels", 70, {"kernels": tests(8, KERNELS)}),
    section("headline", 60, "headline", "bfloat16", "float32"),
    section("device", 20, "device"),
    section("stages", 50, "stages"),
    Step("ncu", 45, {"ncu": Profile(programs=("ncu",))}),
    section("logits", 35, "logits", "float32", "bfloat16", "--shapes", "long", "librispeech", "--without-peers"),
    section("joint", 60, "joint", "float32", "bfloat16", "--shapes", "default", "--without-peers"),
    Step("together", None, {"doors": tests(6, DOORS), "memcheck": sanitizer("memcheck")}),
)


def second(before: dict | None) -> tuple[Step, ...]:
    """The steps of a second call; `before` is the record of the first."""
    return (
        section("contact", 35, "contact", "short"),
        *failed_before(before),
        section("headline", 25, "headline", "bfloat16", "float32", "--limits", "512 MiB"),
        section("joint", 85, "joint", "float32", "bfloat16"),
        section("logits", 60, "logits", "float32", "bfloat16"),
        section("tf32", 40, "joint", "tf32", CUPY_TF32="1"),
        Step("together", 75, {"doors": tests(12, DOORS), "racecheck": sanitizer("racecheck")}),
    )


def failed_before(before: dict | None) -> list[Step]:
    """What the first call left open and has no step of its own in the second: tests that failed by id, steps whole."""
    if before is None:
        return [Step("again", 0, {}, again=True, reason="no record of the first call is given (--before FILE)")]
    known, steps = before["steps"], []
    ids = [failure["id"] for step in known.values() for failure in step.get("failures", ()) if "::" in failure["id"]]
    if ids:
        steps.append(Step("again tests", AGAIN, {"tests": tests(8, *dict.fromkeys(ids))}, again=True))
    for step in FIRST:
        found = known.get(step.name, {})
        unknown = found.get("state") != "ok" and not found.get("failures")
        if unknown and step.name in ("kernels", "device", "stages", "ncu"):
            steps.append(step._replace(name=f"again {step.name}", again=True))
    return steps or [Step("again", 0, {}, again=True, reason="the first call left nothing open")]


def planned(steps) -> float:
    """Seconds that the steps may take by themselves; one that takes what is left adds none."""
    return sum(step.seconds or 0 for step in steps if not step.again) + (
        AGAIN if any(step.again for step in steps) else 0
    )
