"""The simulator's tests once more, with kernels that run as compiled.

The tests are of whole losses, draws, searches and a first contact.
"""

from _pytest.fixtures import FixtureFunctionDefinition

from tests.cudasim import (
    test_alignments,
    test_band,
    test_benchmark_steps,
    test_ctc,
    test_decode,
    test_device,
    test_half,
    test_internal_language_model,
    test_matmul,
    test_path,
    test_posteriors,
    test_risk,
    test_samplers,
    test_steps,
    test_topologies,
    test_walk,
)

MODULES = (
    test_alignments,
    test_band,
    test_benchmark_steps,
    test_ctc,
    test_decode,
    test_device,
    test_half,
    test_internal_language_model,
    test_matmul,
    test_path,
    test_posteriors,
    test_risk,
    test_samplers,
    test_steps,
    test_topologies,
    test_walk,
)

for module in MODULES:
    for name, value in vars(module).items():
        if isinstance(value, FixtureFunctionDefinition):
            globals()[name] = value
        elif name.startswith("test_") and callable(value):
            globals()[f"{module.__name__.rpartition('.')[2]}_{name.removeprefix('test_')}"] = value
del module, name, value
