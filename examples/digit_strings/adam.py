"""Adam (Kingma and Ba 2015) on a dict of arrays, and the schedule of its learning rate."""

import math

import numpy as np


class Adam:
    """Keeps the running moments of each parameter's gradient and updates the parameters in place.

    Parameters
    ----------
    parameters : dict of arrays
        Updated by `step`; gradients come in a dict with the same keys.
    beta1, beta2 : float
        How much of the first and second moment is kept at each step.
    epsilon : float
        Added to the root of the second moment.
    """

    def __init__(
        self, parameters: dict[str, np.ndarray], *, beta1: float = 0.9, beta2: float = 0.98, epsilon: float = 1e-8
    ):
        self.parameters = parameters
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon
        self.first = {name: np.zeros_like(value) for name, value in parameters.items()}
        self.second = {name: np.zeros_like(value) for name, value in parameters.items()}
        self.steps = 0

    def step(self, grads: dict[str, np.ndarray], learning_rate: float) -> None:
        """Take one step against `grads`."""
        self.steps += 1
        # Both moments start at zero and would be too small in the first steps.
        first_scale = 1 / (1 - self.beta1**self.steps)
        second_scale = 1 / (1 - self.beta2**self.steps)
        for name, parameter in self.parameters.items():
            grad, first, second = grads[name], self.first[name], self.second[name]
            first += (1 - self.beta1) * (grad - first)
            second += (1 - self.beta2) * (grad * grad - second)
            parameter -= learning_rate * first_scale * first / (np.sqrt(second_scale * second) + self.epsilon)


def warmup_cosine(step: int, steps: int, peak: float) -> float:
    """The learning rate at `step` of `steps`: a linear rise over the first tenth, then a cosine down to zero."""
    warmup = max(1, steps // 10)
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))
