"""What the doors refuse for its value, and that they say which argument, where, which value and what would do."""

import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest

import lattice
from tests.test_inputs import JOINT, JOINT_DOORS, LOGITS, LOGITS_DOORS, SHARED, WRONG, changed, refuse

BOTH = ((LOGITS_DOORS, LOGITS), (JOINT_DOORS, JOINT))


def test_blank():
    for doors, problem in BOTH:
        for blank in (11, -12, 10**12):
            refuse(doors, problem, {"blank": blank}, ValueError, "blank", blank, 11)
        for blank in (0.0, None, "0", [0]):
            refuse(doors, problem, {"blank": blank}, TypeError, "blank")


def test_target_ids():
    for doors, problem in BOTH:
        for value in (11, -1, 10**6):
            refuse(
                doors,
                problem,
                {"targets": changed(problem.targets, (1, 2), value)},
                ValueError,
                "targets",
                "1, 2",
                value,
                10,
            )
        refuse(
            doors, problem, {"targets": changed(problem.targets, (2, 1), 0)}, ValueError, "targets", "2, 1", 0, "blank"
        )
    last = changed(LOGITS.targets, (0, 0), 10)  # the blank may be counted from the end
    refuse(LOGITS_DOORS, LOGITS, {"targets": last, "blank": -1}, ValueError, "targets", "0, 0", 10, "blank")


def test_lengths():
    for doors, problem, name in ((LOGITS_DOORS, LOGITS, "logit_lengths"), (JOINT_DOORS, JOINT, "encoder_lengths")):
        for value in (0, -1, 8):
            refuse(doors, problem, {name: changed(getattr(problem, name), 1, value)}, ValueError, name, 1, value, 7)
        for value in (-1, 7):
            lengths = changed(problem.target_lengths, 2, value)
            refuse(doors, problem, {"target_lengths": lengths}, ValueError, "target_lengths", 2, value, 6)
        short = {"targets": lambda x: x[:, :3]}  # one label less than the longest example needs
        refuse(doors, problem, short, ValueError, "target_lengths", "targets", 1, 4, 3)
    refuse(LOGITS_DOORS, LOGITS, {"logits": lambda x: x[:, :, :4]}, ValueError, "target_lengths", "logits", 1, 4, 3)
    refuse(JOINT_DOORS, JOINT, {"predictor": lambda x: x[:, :4]}, ValueError, "target_lengths", "predictor", 1, 4, 3)


def test_choices():
    for doors, problem in BOTH:
        refuse(doors, problem, {"topology": "ctc"}, ValueError, "topology", "ctc", "rnnt", "monotonic")
        refuse(doors, problem, {"topology": None}, WRONG, "topology", "rnnt", "monotonic")
    refuse(JOINT_DOORS, JOINT, {"activation": "swish"}, ValueError, "activation", "swish", "tanh", "relu", "identity")
    refuse(JOINT_DOORS, JOINT, {"activation": 1}, WRONG, "activation", "tanh", "relu", "identity")


def test_bounds():
    first, last = np.zeros((3, 7), np.int32), np.full((3, 7), 9, np.int32)
    for doors, problem in BOTH:
        for bad in (3, first, (first,), (first, last, last), (first, None), (first, last.tolist())):
            refuse(doors, problem, {"bounds": bad}, WRONG, "bounds")
        refuse(doors, problem, {"bounds": (first, last.astype(float))}, TypeError, "bounds", "float64")
        refuse(doors, problem, {"bounds": (first[:2], last[:2])}, ValueError, "bounds", 2, 3)
        refuse(
            doors, problem, {"bounds": (first, last[:, :5])}, ValueError, "bounds", 5, 6
        )  # the longest example has 6
        refuse(doors, problem, {"bounds": (first[0], last[0])}, ValueError, "bounds", "(7,)")


def test_fastemit_and_upstream_gradient():
    for door, problem in ((LOGITS_DOORS[1], LOGITS), (JOINT_DOORS[1], JOINT), (JOINT_DOORS[2], JOINT)):
        for value in (-0.1, np.nan, np.inf):
            refuse([door], problem, {"fastemit_lambda": value}, ValueError, "fastemit_lambda", str(value))
        refuse([door], problem, {"fastemit_lambda": "0"}, TypeError, "fastemit_lambda")
    for door, problem in ((LOGITS_DOORS[1], LOGITS), (JOINT_DOORS[1], JOINT)):
        for shape in ((2,), (4,), (3, 1), ()):
            refuse([door], problem, {"grad_loss": np.ones(shape, np.float32)}, ValueError, "grad_loss", str(shape))
        refuse([door], problem, {"grad_loss": np.ones(3, int)}, TypeError, "grad_loss", "int64")
        refuse([door], problem, {"grad_loss": [1.0] * 3}, TypeError, "grad_loss")


def test_out():
    door = LOGITS_DOORS[1:]
    shape = LOGITS.logits.shape
    refuse(door, LOGITS, {"out": np.zeros((3, 7, 7, 10), np.float32)}, ValueError, "out", (3, 7, 7, 10), shape)
    refuse(door, LOGITS, {"out": np.zeros(shape, np.float64)}, WRONG, "out", "float64", "float32")
    refuse(door, LOGITS, {"out": LOGITS.pack(LOGITS.logits)}, ValueError, "out", shape)
    refuse(door, LOGITS, {"out": np.zeros(shape, np.float32).tolist()}, TypeError, "out")
    refuse(door, LOGITS, {"out": np.zeros(shape[::-1], np.float32).T.reshape(shape, order="F")}, ValueError, "out")


def test_read_only_outputs_are_refused():
    frozen = np.zeros(LOGITS.logits.shape, np.float32)
    frozen.setflags(write=False)
    refuse(LOGITS_DOORS[1:], LOGITS, {"out": frozen}, ValueError, "out", "read-only")


def test_floor_and_limit():
    for value in (-1e-9, np.nan):
        refuse(JOINT_DOORS, JOINT, {"posterior_floor": value}, ValueError, "posterior_floor", str(value))
    refuse(JOINT_DOORS, JOINT, {"posterior_floor": None}, TypeError, "posterior_floor")
    for value in (0, -5):
        refuse(JOINT_DOORS, JOINT, {"memory_limit": value}, ValueError, "memory_limit", value)
    refuse(JOINT_DOORS, JOINT, {"memory_limit": "1 GB"}, TypeError, "memory_limit")


@pytest.mark.parametrize("value", ["tf32", None, 3])
def test_precision(value):
    refuse(JOINT_DOORS, JOINT, {"precision": value}, ValueError, "precision", repr(value), "'default', 'tf32x3'")
    refuse(JOINT_DOORS, JOINT, {"memory_limit": 77}, ValueError, "memory_limit", 77, "bytes")


def test_vocabulary():
    ids = np.tile(np.arange(11, dtype=np.int32), (3, 1))
    whole = {"vocabulary_lengths": None}

    def refuse_ids(vocabulary, *words, **more):
        refuse(JOINT_DOORS, JOINT, {**whole, "vocabulary": vocabulary, **more}, ValueError, "vocabulary", *words)

    for value in (11, -2, 10**6):
        refuse_ids(changed(ids, (1, 3), value), "1, 3", value, 10)
    refuse_ids(
        changed(ids, (1, 3), -1), "1, 3", -1, vocabulary_lengths=np.full(3, 11)
    )  # no ending where lengths are given
    refuse_ids(changed(ids, (2, 10), 4), 2, 4)  # twice
    refuse_ids(ids[:, 1:], 0, "blank")
    refuse_ids(changed(ids, (2, 10), -1), 2, 10, "blank", blank=-1, targets=np.minimum(JOINT.targets, 9).clip(1))
    missing = np.stack([np.delete(row, 4 if n == 1 else 10) for n, row in enumerate(ids)])
    refuse_ids(missing, "targets", "1, 2", 4, targets=changed(np.minimum(JOINT.targets, 3), (1, 2), 4))
    for value in (0, -1, 12):
        lengths = changed(np.full(3, 11), 2, value)
        refuse_ids(ids, "vocabulary_lengths", 2, value, vocabulary_lengths=lengths)
    refuse_ids(changed(ids, (1, 0), -1), 1)  # empty: nothing before the ending
    refuse(JOINT_DOORS, JOINT, {"vocabulary": None}, ValueError, "vocabulary_lengths", "vocabulary")


def test_encoder_index():
    for value in (-1, 4):
        index = changed(SHARED.encoder_index, 1, value)
        refuse(JOINT_DOORS, SHARED, {"encoder_index": index}, ValueError, "encoder_index", 1, value, 3)
    refuse(JOINT_DOORS, SHARED, {"encoder_index": [0, 1, 2]}, TypeError, "encoder_index")


class NeedsGradient:
    """Like a torch tensor with requires_grad: DLPack refuses it."""

    def __dlpack__(self, **_):
        raise BufferError("Can't export tensors that require gradient, use tensor.detach()")

    def __dlpack_device__(self):
        return 1, 0


class Unreadable(NeedsGradient):
    def __dlpack__(self, **_):
        raise BufferError("no")


def test_tensors_that_require_a_gradient_get_advice():
    for doors, problem, names in (
        (LOGITS_DOORS, LOGITS, ["logits"]),
        (JOINT_DOORS, JOINT, ["encoder", "predictor", "weight", "bias"]),
    ):
        for name in names:
            refuse(doors, problem, {name: NeedsGradient()}, WRONG, name, ".detach()")
            refuse(doors, problem, {name: Unreadable()}, WRONG, name)


def test_refused_calls_leave_the_logits_alone():
    logits = LOGITS.logits.copy()
    for changes in ({"blank": 11}, {"grad_loss": np.ones(2, np.float32)}, {"topology": "ctc"}, {"fastemit_lambda": -1}):
        refuse(LOGITS_DOORS[1:], LOGITS, {"logits": logits, "out": logits, **changes}, ValueError)
        np.testing.assert_array_equal(logits, LOGITS.logits)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
def test_warm_up(dtype):
    assert lattice.warm_up(dtype) is None


def test_warm_up_compiles_what_each_activation_has():
    """In a process of its own, where no other test has."""
    script = """
import lattice
from lattice.kernels import hidden, hidden_transpose, upper_bounds
from lattice.kernels.activations import ACTIVATIONS, GELU_SLOPE
lattice.warm_up(activations=["relu", "gelu"])
relu, gelu = ACTIVATIONS["relu"], ACTIVATIONS["gelu"]
for module, own in ((hidden, (gelu, GELU_SLOPE)), (hidden_transpose, (GELU_SLOPE,)), (upper_bounds, (gelu,))):
    for activation in (relu, *own):
        kernels = module.KERNELS[activation]
        cpu = [kernel for name, kernel in kernels._asdict().items() if name.endswith("_cpu")]
        assert cpu and all(kernel.signatures for kernel in cpu), activation.name
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_warm_up_knows_its_activations():
    with pytest.raises(ValueError, match=r"activations\[1\] is 'swish', expected one of 'tanh'"):
        lattice.warm_up(activations=["tanh", "swish"])
    for wrong in ("relu", None):
        with pytest.raises(TypeError, match=r"activations is .*expected a sequence of names"):
            lattice.warm_up(activations=wrong)


def test_warm_up_knows_its_dtypes():
    with pytest.raises(TypeError):
        lattice.warm_up(np.int32)
