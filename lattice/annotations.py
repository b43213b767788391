"""Types of the doors' arguments and results."""

from collections.abc import Callable
from typing import Any, Literal, Protocol, TypeVar

from .topology import Topology


class Array(Protocol):
    """An array of NumPy, CuPy, torch, JAX, or anything else with `__dlpack__`."""

    def __dlpack__(self, *args: Any, **kwargs: Any) -> Any: ...

    def __dlpack_device__(self) -> tuple[Any, Any]: ...


A = TypeVar("A", bound=Array)
"""The kind of the first argument, and of real results. Integer results are of it too, but of another dtype: Any."""

Bounds = tuple[Array, Array] | list[Array]
"""(first, last) label position that exist at each frame, (B, T) each."""
TopologyLike = Literal["rnnt", "monotonic", "constrained"] | Topology
"""A name, or a topology with its options."""
Activation = Literal["tanh", "relu", "identity", "sigmoid", "leaky_relu", "gelu", "silu"]
Dropout = tuple[float, int] | list | None
"""(rate, seed), or None."""
Precision = Literal["default", "tf32x3"]
Keep = Literal["first", "last"]
Predict = Callable[[Any, Any], tuple[Any, Any]]
"""(labels (N,), state or None) -> (predictor (N, H), state)."""
