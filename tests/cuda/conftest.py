"""The real device, where there is one."""

import os

import pytest

from tests.on_device import OnDevice

# JAX would take most of the GPU's memory at its first array.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def pytest_ignore_collect(collection_path):
    """Nothing here is collected without a GPU: the summary says why."""
    from tests.conftest import why_no_gpu

    return True if collection_path.name.startswith("test_") and why_no_gpu() else None


@pytest.fixture(scope="session")
def cupy():
    return pytest.importorskip("cupy")


@pytest.fixture(scope="session")
def there(cupy):
    """The doors of the library, on the device."""
    return OnDevice(cupy.asarray, cupy.asnumpy, integers=True)
