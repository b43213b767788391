"""Every public function has types that a checker can read: `make lint` checks them, here they are complete and true."""

import inspect
from pathlib import Path

import numpy as np
import pytest

import lattice
import samplers
from tests import typed_calls

DOORS = [(package, name) for package in (lattice, samplers) for name in package.__all__]


@pytest.mark.parametrize("package, name", [door for door in DOORS if inspect.isfunction(getattr(*door))])
def test_every_argument_and_result_has_a_type(package, name):
    signature = inspect.signature(getattr(package, name))
    unknown = [parameter.name for parameter in signature.parameters.values() if parameter.annotation is parameter.empty]
    assert unknown == [] and signature.return_annotation is not signature.empty


@pytest.mark.parametrize("package", [lattice, samplers])
def test_the_packages_say_that_they_are_typed(package):
    assert (Path(package.__file__).parent / "py.typed").is_file()


def test_typed_calls_return_what_their_types_say():
    loss, weight = typed_calls.reads_a_type_off(np.zeros((1, 3, 2, 4)))
    for array in (loss, weight, typed_calls.takes_what_the_others_give()):
        assert isinstance(array, np.ndarray) and array.dtype == np.float32
