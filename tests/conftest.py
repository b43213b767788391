"""Hypothesis: reproducible, and without a deadline, because the first call of a compiled function compiles it."""

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
