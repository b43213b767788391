"""The digit-string network of examples/02 for any topology: rows for durations, and the gradients of a step."""

import numpy as np

from examples.digit_strings.network import Arrays, backward, forward, initial_parameters
from examples.digit_strings.strings import BLANK, DigitStrings
from lattice import Topology, joint_transducer_loss_and_grad

TOPOLOGIES = {"rnnt": Topology("rnnt"), "tdt": Topology("tdt", durations=(0, 1, 2, 3, 4), sigma=0.05)}


def parameters_for(topology: Topology, rng: np.random.Generator, dtype=np.float32) -> Arrays:
    """Random parameters of the network. Those of the durations are the last that are drawn."""
    parameters = initial_parameters(rng, dtype=dtype)
    weight, bias = parameters["output.weight"], parameters["output.bias"]
    D, H = topology.tail, weight.shape[1]
    rows = rng.standard_normal((D, H)) / np.sqrt(H)
    parameters["output.weight"] = np.concatenate([weight, rows.astype(dtype)])
    parameters["output.bias"] = np.append(bias, np.zeros(D, dtype))
    return parameters


def grads_by(topology: Topology):
    """Function (parameters, strings) -> mean loss in nats a label, gradient of every parameter."""

    def grads_of(parameters: Arrays, strings: DigitStrings) -> tuple[float, Arrays]:
        encoder, predictor, saved = forward(parameters, strings)
        output = parameters["output.weight"], parameters["output.bias"]
        integers = strings.targets, strings.encoder_lengths, strings.target_lengths
        grad_loss = np.full(len(encoder), 1 / strings.target_lengths.sum(), encoder.dtype)
        loss, grads = joint_transducer_loss_and_grad(
            encoder, predictor, *output, *integers, blank=BLANK, topology=topology, grad_loss=grad_loss
        )
        return float(loss @ grad_loss), backward(parameters, saved, grads)

    return grads_of
