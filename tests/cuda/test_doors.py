"""The tests of the host's doors once more, on the device.

Round each call their NumPy arrays are put on the device and fetched back.
"""

import pytest
from _pytest.fixtures import FixtureFunctionDefinition

import lattice
from tests import (
    joint_oracle,
    test_alignments,
    test_alignments_inputs,
    test_alignments_laws,
    test_best_path,
    test_best_path_laws,
    test_ctc,
    test_ctc_inputs,
    test_ctc_laws,
    test_inputs,
    test_inputs_values,
    test_joint,
    test_joint_laws,
    test_joint_vjp,
    test_path_inputs,
    test_path_loss,
    test_path_loss_laws,
    test_posteriors,
    test_risk,
    test_risk_inputs,
    test_risk_pipeline,
    test_scores,
    test_sizes,
    test_transducer,
)
from tests import test_transducer_laws as laws

MODULES = (
    test_transducer,
    laws,
    test_joint,
    test_joint_laws,
    test_joint_vjp,
    test_sizes,
    test_inputs,
    test_inputs_values,
    test_ctc,
    test_ctc_laws,
    test_ctc_inputs,
    test_alignments,
    test_alignments_laws,
    test_alignments_inputs,
    test_best_path,
    test_best_path_laws,
    test_path_loss,
    test_path_loss_laws,
    test_path_inputs,
    test_risk,
    test_risk_inputs,
    test_risk_pipeline,
    test_posteriors,
    test_scores,
)
HOST_ONLY = {
    "test_read_only_arrays_are_not_overwritten",
    "test_read_only_outputs_are_refused",
    "test_dtypes_of_reals",
    "test_outputs_over_a_part_of_the_logits_are_refused",
    "test_hypotheses_of_one_utterance_share_its_encoder_row_without_copies",
    "test_measured_memory_stays_below_the_limit",
}
"""Tests of what holds on the host. They are of read-only NumPy memory, whose copy on the device may be written to; of
dtypes that CuPy does not have; of arrays that share memory, which their copies do not; and of how much of NumPy's
memory is in use."""


@pytest.fixture(scope="module", autouse=True)
def doors_on_the_device(there):
    with pytest.MonkeyPatch.context() as patch:
        for name, door in there.doors().items():
            patch.setattr(lattice, name, door)
        patch.setattr(joint_oracle, "ROUNDED_OPERANDS", {"bfloat16"})
        yield


for module in MODULES:
    for name, value in vars(module).items():
        if isinstance(value, FixtureFunctionDefinition):
            globals()[name] = value
        elif name.startswith("test_") and callable(value) and name not in HOST_ONLY:
            globals()[
                f"test_{module.__name__.rpartition('.')[2].removeprefix('test_')}_{name.removeprefix('test_')}"
            ] = value
del module, name, value
