"""Settings of hypothesis, and a word about the tiers of tests that a run leaves out.

Hypothesis is reproducible, and without a deadline, because the first call of a compiled function compiles it.
"""

import importlib.util

from hypothesis import HealthCheck, settings

settings.register_profile(
    "transducer-lattice",
    deadline=None,
    derandomize=True,
    max_examples=100,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("transducer-lattice")


def pytest_terminal_summary(terminalreporter):
    """One line for each tier of the tests that this run left out, and why."""
    for tier, reason in skipped_tiers():
        terminalreporter.write_line(f"tier {tier}: not run, {reason}")


def skipped_tiers():
    missing = [library for library in ("torch", "jax") if importlib.util.find_spec(library) is None]
    if missing:
        yield "dlpack", f"{' and '.join(missing)} not installed"
    for tier in ("cudasim", "ptx", "cuda"):
        yield tier, "this version has no CUDA kernels yet"
