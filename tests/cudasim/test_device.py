"""What a device asks for beside the right numbers.

The tests are of waits, streams, mixed devices, memory that is not there, and arrays of others.
"""

import gc
import re
import threading
import time
import weakref

import numpy as np
import pytest

import lattice
from lattice.device import arrays, in_flight
from lattice.inputs.joint import read_joint
from lattice.kernels import ptx
from lattice.tiles import full_sum
from tests.problems import joint_problem, logits_problem

SMALL = {"batch": 3, "frames": 4, "labels": 3}


def placed(device, values, *, integers=True):
    """Arguments on the device; with `integers` false ids and lengths stay on the host."""
    keep = () if integers else "iu"
    return [device.asarray(x) if isinstance(x, np.ndarray) and x.dtype.kind not in keep else x for x in values]


@pytest.mark.parametrize("integers", [True, False])
def test_from_logits_waits_at_the_door_alone(device, integers):
    arguments = placed(device, logits_problem(0, **SMALL).args, integers=integers)
    device.syncs = 0
    lattice.transducer_loss_and_grad(*arguments)
    assert device.syncs == int(integers)


@pytest.mark.parametrize("sharpness, posterior_floor", [(8.0, 0.0), (8.0, 2.0**-24), (40.0, 2.0**-24)])
@pytest.mark.parametrize("integers", [True, False])
def test_the_joint_waits_at_the_door_once_a_group_and_once_a_round(device, integers, sharpness, posterior_floor):
    problem = joint_problem(0, vocabulary="lengths", sharpness=sharpness, **SMALL)
    arguments, options = placed(device, problem.args, integers=integers), dict(problem.options)
    for name in ("vocabulary", "vocabulary_lengths"):
        options[name] = device.asarray(options[name]) if integers else options[name]
    options["posterior_floor"] = posterior_floor
    report = lattice.joint_transducer_report(*arguments, **options)
    # Where cells are left out, one more round finds that no more are wanted.
    rounds = report.rounds.max() + bool((report.certified < report.cells).any())
    waits = int(integers) + (rounds if posterior_floor else 0)
    device.syncs = 0
    lattice.joint_transducer_loss(*arguments, **options)
    assert device.syncs == waits
    device.syncs = 0
    lattice.joint_transducer_loss_and_grad(*arguments, **options)
    assert device.syncs == waits + 1
    device.syncs = 0
    upstream = device.asarray(np.ones(3, np.float32))
    _, vjp = lattice.joint_transducer_loss_vjp(*arguments, **options)
    assert device.syncs == waits + 1
    vjp(upstream)
    assert device.syncs == waits + 1


def test_a_group_that_is_not_bounded_waits_for_no_round(device):
    """Of six groups that know nothing, four vouch for the fifth. The sixth is bounded again."""
    problem = joint_problem(0, batch=6, lengths=([6] * 6, [3] * 6), sharpness=0.0)
    arguments = placed(device, problem.args, integers=False)
    read = read_joint(*arguments, blank=0, activation="tanh", topology="rnnt")
    with pytest.raises(ValueError, match=r"at least (\d+)") as caught:
        full_sum.plan(read, gradients=True, limit=1)
    limit = int(re.search(r"at least (\d+)", str(caught.value))[1])
    assert full_sum.plan(read, gradients=True, limit=limit).plan.groups == [(n, n + 1) for n in range(6)]
    report = lattice.joint_transducer_report(*arguments, memory_limit=limit)
    assert report.rounds.tolist() == [1, 1, 1, 1, 0, 1] and (report.certified == report.cells).all()
    device.syncs = 0
    loss, _ = lattice.joint_transducer_loss_and_grad(*arguments, memory_limit=limit)
    # A round of each group but the fifth, and the occupied cells of each.
    assert device.syncs == 5 + 6
    np.testing.assert_allclose(device.asnumpy(loss), lattice.joint_transducer_loss(*problem.args), rtol=1e-5)


def test_kernels_run_on_the_current_stream(device, monkeypatch):
    streams, run = set(), ptx.run

    def spy(*launch):
        streams.add(device.cuda.get_current_stream().ptr)
        run(*launch)

    monkeypatch.setattr(ptx, "run", spy)
    stream = device.cuda.Stream()
    with stream:
        lattice.joint_transducer_loss_and_grad(*placed(device, joint_problem(1, **SMALL).args))
    assert streams == {stream.ptr}


@pytest.mark.parametrize("position, name", [(1, "predictor"), (2, "weight"), (3, "bias")])
def test_mixed_devices_are_named_before_anything_runs(device, monkeypatch, position, name):
    problem = joint_problem(2, **SMALL)
    arguments = placed(device, problem.args)
    arguments[position] = problem.args[position]
    monkeypatch.setattr(ptx, "run", None)
    with pytest.raises(ValueError, match=rf"{name} is on the host, expected CUDA device 0 as the first argument"):
        lattice.joint_transducer_loss(*arguments)
    arguments = list(problem.args)
    arguments[position] = device.asarray(arguments[position])
    with pytest.raises(ValueError, match=rf"{name} is on CUDA device 0, expected the host"):
        lattice.joint_transducer_loss(*arguments)


def test_upstream_gradients_and_outputs_elsewhere_are_named(device):
    problem = logits_problem(3, **SMALL)
    arguments = placed(device, problem.args)
    with pytest.raises(ValueError, match="grad_loss is on the host, expected CUDA device 0"):
        lattice.transducer_loss_and_grad(*arguments, grad_loss=np.ones(3, np.float32))
    with pytest.raises(ValueError, match="out is on the host, expected CUDA device 0"):
        lattice.transducer_loss_and_grad(*arguments, out=problem.logits.copy())


def test_bad_input_is_told_before_any_kernel_is_launched(device, monkeypatch):
    monkeypatch.setattr(ptx, "run", None)
    arguments = placed(device, logits_problem(4, **SMALL).args)
    arguments[2] = device.asarray(np.array([4, 9, 1]))
    with pytest.raises(ValueError, match=r"logit_lengths\[1\] is 9, expected 1 to 5"):
        lattice.transducer_loss(*arguments)
    arguments[0] = device.asarray(np.ones((2, 3, 4, 5), np.int32))
    with pytest.raises(TypeError, match="logits has dtype int32"):
        lattice.transducer_loss(*arguments)


def test_out_of_memory_names_what_was_asked_for_and_what_would_do(device):
    problem = joint_problem(5, frames=30, labels=10, batch=4)
    arguments = placed(device, problem.args, integers=False)
    device.memory_info, device.limit = (40_000, 10**6), device.live_bytes + 40_000
    with pytest.raises(
        MemoryError, match=r"CUDA device 0 has no room for a workspace of \d+ bytes.*memory_limit=(\d+)"
    ) as caught:
        lattice.joint_transducer_loss(*arguments)
    would_do = int(str(caught.value).split("memory_limit=")[1].split()[0])
    loss = lattice.joint_transducer_loss(*arguments, memory_limit=would_do)
    assert np.isfinite(device.asnumpy(loss)).all()
    device.limit = device.live_bytes + 25_000
    with pytest.raises(MemoryError, match=r"no room for an output of \d+ bytes.*overwrite=True"):
        lattice.joint_transducer_loss_and_grad(*arguments, memory_limit=24_000)


def test_a_device_has_a_limit_of_its_own_where_none_is_given(device):
    problem, options = joint_problem(12, **SMALL), {"blank": 0, "activation": "tanh", "topology": "rnnt"}
    for arguments, limit in ((problem.args, 256 << 20), (placed(device, problem.args), 1 << 30)):
        assert read_joint(*arguments, **options).memory_limit == limit
        assert read_joint(*arguments, **options, memory_limit=12345).memory_limit == 12345


def test_vjp_waits_for_the_stream_of_the_forward_pass(device, monkeypatch):
    waited = []
    monkeypatch.setattr(
        device.cuda.Stream, "wait_event", lambda stream, event: waited.append((stream.ptr, event)), raising=False
    )
    forward, backward = device.cuda.Stream(), device.cuda.Stream()
    with forward:
        _, vjp = lattice.joint_transducer_loss_vjp(*placed(device, joint_problem(9, **SMALL).args))
    with backward:
        vjp()
    assert [stream for stream, _ in waited] == [backward.ptr]


def test_arguments_of_other_libraries_are_held_until_they_are_read(device, monkeypatch):
    held = []
    monkeypatch.setattr(in_flight, "hold_arguments", lambda event, arrays: held.append(arrays))
    arguments = placed(device, joint_problem(10, **SMALL).args)
    lattice.joint_transducer_loss(*arguments)
    assert not held
    lattice.joint_transducer_loss(*map(Foreign, arguments))
    (kept,) = held
    assert [array.data.ptr for array in kept] == [array.data.ptr for array in arguments[:4]]
    _, vjp = lattice.joint_transducer_loss_vjp(*map(Foreign, arguments))
    held.clear()
    vjp()
    ((_, *kept),) = held
    assert [array.data.ptr for array in kept] == [array.data.ptr for array in arguments[:4]]


def test_arguments_of_other_libraries_are_let_go_without_another_call(device, monkeypatch):
    """A thread waits for the event; until that is passed nothing is let go, and after it nobody has to call."""
    passed, slept = threading.Event(), []

    def synchronize(event):
        slept.append(event)
        assert passed.wait(10)

    monkeypatch.setattr(device.cuda.Event, "synchronize", synchronize)
    arguments = [Foreign(x) for x in placed(device, joint_problem(10, **SMALL).args)]
    encoder = weakref.ref(arguments[0]._fake._memory)
    lattice.joint_transducer_loss(*arguments)
    del arguments
    gc.collect()
    assert encoder() is not None
    passed.set()
    for _ in range(1000):
        if encoder() is None:
            break
        time.sleep(0.01)
    assert encoder() is None and slept


def test_where_no_thread_can_be_had_a_call_waits_for_its_arguments(device, monkeypatch):
    def start(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(in_flight, "_thread", None)
    monkeypatch.setattr(threading.Thread, "start", start)
    arguments = [Foreign(x) for x in placed(device, joint_problem(10, **SMALL).args)]
    device.syncs = 0
    loss = lattice.joint_transducer_loss(*arguments, posterior_floor=0.0)
    assert device.syncs == 2 and np.isfinite(device.asnumpy(loss._fake)).all()
    assert in_flight._thread is None and in_flight._arguments.empty()


def test_an_error_at_the_door_waits_for_copies_under_way(device):
    arguments = placed(device, joint_problem(11, **SMALL).args)
    arguments[5] = OnNoDevice()
    device.syncs = 0
    with pytest.raises(TypeError, match="encoder_lengths"):
        lattice.joint_transducer_loss(*arguments)
    assert device.syncs == 1


class OnNoDevice:
    def __dlpack_device__(self):
        raise ValueError("Unknown device type")


class Foreign:
    """An array of another library on the device.

    The door reads it through DLPack and gives results back through its library's `from_dlpack`.
    """

    def __init__(self, array, read_only=False):
        self._fake, self.read_only = array, read_only

    def __dlpack_device__(self):
        return self._fake.__dlpack_device__()

    def __dlpack__(self, **options):
        if self.read_only:
            options.pop("max_version", None)
        return self._fake.__dlpack__(**options)

    def __array_namespace__(self):
        return type("namespace", (), {"from_dlpack": staticmethod(Foreign)})


def test_arrays_of_other_libraries_come_back_in_kind(device):
    problem = joint_problem(6, **SMALL)
    expected = lattice.joint_transducer_loss(*problem.args)
    foreign = [Foreign(x) for x in placed(device, problem.args)]
    loss, gradients = lattice.joint_transducer_loss_and_grad(*foreign)
    assert type(loss) is Foreign and all(type(part) is Foreign for part in gradients)
    assert np.allclose(device.asnumpy(loss._fake), expected)


def test_read_only_memory_on_a_device_is_not_overwritten(device):
    encoder, *rest = (Foreign(x) for x in placed(device, joint_problem(7, **SMALL).args))
    encoder.read_only = True
    with pytest.raises(ValueError, match="encoder is read-only"):
        lattice.joint_transducer_loss_and_grad(encoder, *rest, overwrite=True)


def test_arrays_that_share_memory_are_refused(device):
    memory = device.asarray(np.zeros((3, 8, 5), np.float32))
    encoder, predictor = memory[:, :4].copy(), memory.reshape(-1)[:60].reshape(3, 4, 5)
    rest = placed(device, joint_problem(8, **SMALL).args)[2:]
    with pytest.raises(ValueError, match="share memory"):
        lattice.joint_transducer_loss_and_grad(predictor, predictor, *rest, overwrite=True)
    assert not arrays.overlap(encoder, predictor)
