"""torch and JAX arrays in host memory: read without a copy, given back in kind, refused with a reason."""

import gc

import ml_dtypes
import numpy as np
import pytest

import lattice
from lattice.device import arrays, dlpack
from tests.problems import joint_problem, logits_problem

torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")
jax.config.update("jax_enable_x64", True)

DTYPES = ["float32", "float64", "float16", "bfloat16"]


class Torch:
    kind = torch.Tensor

    @staticmethod
    def put(array):
        if array.dtype == ml_dtypes.bfloat16:
            return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(array)

    @staticmethod
    def fetch(array):
        if array.dtype == torch.bfloat16:
            return array.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
        return array.numpy()

    address = staticmethod(torch.Tensor.data_ptr)


class Jax:
    kind = jax.Array
    put, fetch = staticmethod(jax.numpy.asarray), staticmethod(np.asarray)

    @staticmethod
    def address(array):
        return array.unsafe_buffer_pointer()


LIBRARIES = [Torch, Jax]


@pytest.fixture(params=LIBRARIES, ids=["torch", "jax"])
def library(request):
    return request.param


def put_all(library, values):
    return [library.put(x) if isinstance(x, np.ndarray) else x for x in values]


@pytest.mark.parametrize("dtype", DTYPES)
def test_from_logits_in_kind(library, dtype):
    problem = logits_problem(0, dtype=np.dtype(dtype))
    expected = lattice.transducer_loss_and_grad(*problem.args)
    results = lattice.transducer_loss_and_grad(*put_all(library, problem.args))
    for ours, truth in zip(results, expected, strict=True):
        assert isinstance(ours, library.kind)
        assert np.array_equal(library.fetch(ours), truth) and library.fetch(ours).dtype == truth.dtype


@pytest.mark.parametrize("integer", [np.int32, np.int64])
@pytest.mark.parametrize("dtype", DTYPES)
def test_joint_in_kind(library, dtype, integer):
    problem = joint_problem(1, dtype=np.dtype(dtype), integer=integer, vocabulary="lengths", bounded=True)
    upstream = np.linspace(-1, 1, 4).astype(np.float64 if dtype == "float64" else np.float32)
    expected_loss, expected = lattice.joint_transducer_loss_and_grad(
        *problem.args, **problem.options, grad_loss=upstream
    )
    options = dict(problem.options)
    options["vocabulary"], options["bounds"] = (
        library.put(options["vocabulary"]),
        tuple(map(library.put, options["bounds"])),
    )
    loss, vjp = lattice.joint_transducer_loss_vjp(*put_all(library, problem.args), **options)
    assert np.array_equal(library.fetch(loss), expected_loss)
    for ours, truth in zip(vjp(library.put(upstream)), expected, strict=True):
        assert isinstance(ours, library.kind)
        assert np.array_equal(library.fetch(ours), truth) and library.fetch(ours).dtype == truth.dtype


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_copy_on_the_way_in(library, dtype):
    given = library.put(np.arange(256).astype(dtype).reshape(4, 64))
    read = arrays.read(given, "x")
    assert read.dtype.name == dtype and arrays.address(read) == library.address(given)
    assert np.array_equal(read, library.fetch(given))


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_copy_on_the_way_out(library, dtype):
    from lattice.device.memory import HOST

    output = HOST.empty((4, 64), dtype)
    output[:] = np.arange(256).reshape(4, 64)
    given = arrays.give_back(output, library.put(np.zeros(1, np.float32)))
    address = arrays.address(output)
    assert isinstance(given, library.kind) and library.address(given) == address
    del output
    gc.collect()
    assert np.array_equal(library.fetch(given).astype(float), np.arange(256).reshape(4, 64).astype(dtype).astype(float))


@pytest.mark.parametrize("dtype", DTYPES)
def test_torch_gradients_in_place(dtype):
    problem = logits_problem(2, dtype=np.dtype(dtype))
    expected = lattice.transducer_loss_and_grad(*problem.args)[1]
    logits = Torch.put(problem.logits.copy())
    assert lattice.transducer_loss_and_grad(logits, *problem.args[1:], out=logits)[1] is logits
    assert np.array_equal(Torch.fetch(logits), expected)
    joint = joint_problem(3, dtype=np.dtype(dtype))
    expected = lattice.joint_transducer_loss_and_grad(*joint.args)[1]
    encoder, predictor, *rest = put_all(Torch, [x.copy() for x in joint.args])
    gradients = lattice.joint_transducer_loss_and_grad(encoder, predictor, *rest, overwrite=True)[1]
    assert gradients.encoder is encoder and gradients.predictor is predictor
    assert all(np.array_equal(Torch.fetch(ours), truth) for ours, truth in zip(gradients, expected, strict=True))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_immutable_arrays_are_not_overwritten(dtype):
    problem = logits_problem(4, dtype=np.dtype(dtype))
    logits = Jax.put(problem.logits)
    with pytest.raises(ValueError, match="out is read-only and cannot be overwritten"):
        lattice.transducer_loss_and_grad(logits, *problem.args[1:], out=logits)
    joint = put_all(Jax, joint_problem(5, dtype=np.dtype(dtype)).args)
    with pytest.raises(ValueError, match="encoder is read-only and cannot be overwritten"):
        lattice.joint_transducer_loss_and_grad(*joint, overwrite=True)


@pytest.mark.parametrize("name", ["encoder", "predictor", "weight", "bias"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_requires_a_gradient_is_told_to_detach(name, dtype):
    values = dict(zip(("encoder", "predictor", "weight", "bias"), put_all(Torch, joint_problem(6).args[:4])))
    values = {key: value.to(dtype) for key, value in values.items()}
    values[name].requires_grad_()
    with pytest.raises(ValueError, match=rf"{name} requires a gradient: pass {name}.detach\(\)"):
        lattice.joint_transducer_loss(*values.values(), *joint_problem(6).args[4:])


def test_tracers_are_told_where_to_go():
    problem = logits_problem(7)
    with pytest.raises(TypeError, match=r"logits of type .*Tracer.*pure_callback"):
        jax.jit(lambda logits: lattice.transducer_loss(logits, *problem.args[1:]))(problem.logits)


@pytest.mark.parametrize(
    "value, match",
    [
        (torch.zeros(2, 3, 4, 5, dtype=torch.int32), "dtype int32, expected one of float32"),
        (torch.zeros(2, 3, 4, 5, dtype=torch.complex64), "dtype complex64"),
        (torch.zeros(2, 3, 4, 5, dtype=torch.float8_e4m3fn), "cannot be read by DLPack"),
        (torch.zeros(2, 3, 4, 5, device="meta"), "has no device|cannot be read"),
        (torch.zeros(2, 3).to_sparse(), "cannot be read by DLPack"),
    ],
)
def test_what_cannot_be_taken_is_a_type_error(value, match):
    with pytest.raises((TypeError, ValueError), match=f"logits.*({match})"):
        lattice.transducer_loss(value, *logits_problem(8).args[1:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_any_strides_are_read(dtype):
    problem = logits_problem(9)
    logits = Torch.put(problem.logits).to(dtype)
    expected = lattice.transducer_loss(logits, *problem.args[1:])
    turned = logits.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    apart = torch.stack([logits, logits], dim=-1)[..., 1]
    for given in (turned, apart):
        assert not given.is_contiguous()
        assert torch.equal(lattice.transducer_loss(given, *problem.args[1:]), expected)


def test_subclasses_and_mixtures():
    problem = joint_problem(10)
    encoder = torch.nn.Parameter(Torch.put(problem.encoder), requires_grad=False)
    loss = lattice.joint_transducer_loss(encoder, *problem.args[1:])
    assert isinstance(loss, torch.Tensor)
    assert np.array_equal(loss.numpy(), lattice.joint_transducer_loss(*problem.args))
    assert isinstance(lattice.joint_transducer_loss(problem.encoder, *put_all(Jax, problem.args[1:])), np.ndarray)


def test_a_reader_of_an_unknown_abi_refuses():
    class Producer:
        def __dlpack_device__(self):
            return (1, 0)

        def __dlpack__(self, **options):
            capsule = np.zeros(3, np.float32).__dlpack__(max_version=(1, 0))
            dlpack._look_into(capsule)
            version = dlpack._Versioned.from_address(dlpack._pointer_of(capsule, b"dltensor_versioned"))
            version.major = 7
            return capsule

    with pytest.raises(TypeError, match="x of type Producer cannot be read by DLPack: DLPack version 7"):
        arrays.read(Producer(), "x")
