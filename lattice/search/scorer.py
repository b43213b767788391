"""The cells that live hypotheses stand in -> the scores of their blanks and of their best labels."""

import math

import numpy as np

from ..device import arrays
from ..device.arrays import computing_dtype
from ..inputs.decode import DecodeProblem
from ..kernels.best import best
from ..kernels.best_steps import best_steps
from ..kernels.dropout import NO_DROPOUT
from ..kernels.hidden import compute_hidden
from ..kernels.rows import gather


class Scorer:
    """One matrix product for all hypotheses of a batch. What is fetched from a device is a few numbers of each.

    Without `allowed` the rows of the product are the hypotheses. With `allowed` each example has an output layer of its
    own. The layers are gathered once, longest example first, so that the layers in use lie in one stretch. Each of them
    gets as many rows as the example with the most hypotheses.
    """

    def __init__(self, problem: DecodeProblem, beam: int):
        self.problem, self.device = problem, problem.device
        self.dtype = computing_dtype(problem.weight.dtype)
        encoder = problem.encoder.reshape(-1, problem.encoder.shape[2])
        # The kernels of a GPU read half precision.
        self.encoder = encoder if self.device.on_gpu else self.device.convert(encoder, self.dtype)
        # Neither factors nor dropout.
        self.memory, self.factors = {}, self.device.empty((0, encoder.shape[1]), self.dtype)
        (self.dropout,) = self.device.upload(None, NO_DROPOUT)
        if problem.allowed is None:
            self._whole_layer()
        else:
            self._own_layers()
        # Labels listed of a row. More than `beam` never survive, and the kernel wants one at least.
        self.count = max(1, min(beam, self.size - problem.topology.tail - len(problem.blank_ids)))

    def _whole_layer(self) -> None:
        """One output layer for all: weight (H, S), bias (1, S) or (1, 0), and ids (1, S) that are their positions.

        S is V, and with "tdt" V + D.
        """
        problem = self.problem
        self.size = len(problem.weight)
        self.weight = self.device.convert(problem.weight, self.device.operand_dtype(problem.weight.dtype)).T
        bias = (
            self.device.empty(0, self.dtype) if problem.bias is None else self.device.convert(problem.bias, self.dtype)
        )
        self.bias = bias.reshape(1, len(bias))
        # (B,) the layer of each example.
        self.rank, self.ids = np.zeros(len(problem.lengths), np.int64), np.arange(self.size)[None]
        (self.blank,) = self.device.upload(None, problem.blank_ids[None])

    def _own_layers(self) -> None:
        """An output layer for each example: weight (B, H, S), bias (B, S) and ids (B, S), longest example first.

        S is the size of the longest row of ids. With "tdt" the D durations stand behind it in each layer.
        """
        problem, B = self.problem, len(self.problem.lengths)
        order = np.argsort(-problem.lengths, kind="stable")  # (B,) examples, longest first
        self.rank = np.argsort(order)  # (B,) its inverse
        tail = problem.topology.tail
        self.size = max(len(row) for row in problem.allowed) + tail
        # A short row ends in more blanks, whose bias of -inf closes them.
        self.ids = np.full((B, self.size), problem.blank_ids[0], np.int64)
        closed = np.full((B, self.size), -math.inf, self.dtype)
        for rank, b in enumerate(order):
            self.ids[rank, : len(problem.allowed[b])] = problem.allowed[b]
            closed[rank, : len(problem.allowed[b])] = 0
        # (B, K) the first place of each, which is the open one.
        blank = np.argmax(self.ids[:, :, None] == problem.blank_ids, axis=1)
        self.ids[:, self.size - tail :] = np.arange(len(problem.weight) - tail, len(problem.weight))
        closed[:, self.size - tail :] = 0
        ids, self.blank, self.bias = self.device.upload(None, self.ids.reshape(-1), blank, closed)
        H = problem.weight.shape[1]
        rows, self.weight = (self.device.empty(shape, self.dtype) for shape in ((B * self.size, H), (B, H, self.size)))
        gather(self.device.convert(problem.weight, self.dtype), ids, rows)
        self.weight[:] = rows.reshape(B, self.size, H).transpose(0, 2, 1)
        if problem.bias is not None:
            bias = self.device.empty((B, self.size), self.dtype)
            gather(self.device.convert(problem.bias, self.dtype)[:, None], ids, bias.reshape(-1, 1))
            self.bias += bias

    def _take(self, name: str, shape: tuple[int, ...], dtype):
        """Memory that every call uses again, and that is replaced when a call needs more."""
        size = math.prod(shape)
        if name not in self.memory or len(self.memory[name]) < size:
            self.memory[name] = self.device.empty(size, dtype)
        return self.memory[name][:size].reshape(shape)

    def _places(self, example):
        """(stretch, depth, place (n,)): the output layers in use, rows for each, and the row of each hypothesis."""
        if self.problem.allowed is None:
            return None, len(example), np.arange(len(example))
        rank = self.rank[example]
        stretch = slice(int(rank.min()), int(rank.max()) + 1)
        order = np.argsort(rank, kind="stable")
        nth = np.empty(len(rank), np.int64)  # (n,) its number among the hypotheses of its example
        nth[order] = np.arange(len(rank)) - np.searchsorted(rank[order], rank[order])
        depth = int(nth.max()) + 1
        return stretch, depth, (rank - stretch.start) * depth + nth

    def __call__(self, example, frame, predictor):
        """Log-probabilities of what hypotheses may do next.

        Parameters
        ----------
        example, frame : (n,) int64
            The example and the frame of each hypothesis.
        predictor : (n, H)
            A row for each.

        Returns
        -------
        score : (n, k + 1) float64
            In nats, of the blank and then of the k best labels, best first. -inf where there are fewer. NaN throughout
            where a logit of the row is NaN or +inf.
        label : (n, k) int64
            The ids of these labels, -1 where there are fewer.
        step_score : (D, n) float64
            Scores of the steps that arcs take (steps.py); D is 0 for topologies with two arcs a cell. What the first
            column of `score` is beside them is said there too.
        """
        n, (T, H) = len(example), self.problem.encoder.shape[1:]
        stretch, depth, place = self._places(example)
        rows = depth if stretch is None else (stretch.stop - stretch.start) * depth
        # (rows,) the hypothesis of each row. A row without one repeats the first hypothesis, and nobody reads it.
        slot = np.zeros(rows, np.int64)
        slot[place] = np.arange(n)
        layer = self.rank[example]  # (n,)
        frame_row, slot, count_up, place, owner = self.device.upload(
            None, (example * T + frame)[slot], slot, np.arange(rows), place, layer
        )
        weight = self.weight if stretch is None else self.weight[stretch]
        hidden = self._take("hidden", (rows, H), weight.dtype)
        # A row of the encoder meets a few hypotheses, too few for factors to pay.
        inputs = self.encoder, predictor, self.factors, self.dropout, frame_row, slot
        compute_hidden(self.problem.activation, *inputs, count_up, count_up, hidden)
        logits = self._take("logits", (rows, self.size), self.dtype)
        if stretch is None:
            self.device.matmul(hidden, weight, logits)
        else:
            self.device.matmul(hidden.reshape(-1, depth, H), weight, logits.reshape(-1, depth, self.size))
        score, label = self.device.empty((n, self.count + 1), self.dtype), self.device.empty((n, self.count), np.int32)
        topology = self.problem.topology
        step_score = self.device.empty((topology.steps.shape[1], n), self.dtype)
        rows = logits, self.bias, place, owner
        if len(step_score):
            best_steps(*rows, self.blank, topology.tail, topology.sigma, score, label, step_score)
        else:
            best(*rows, self.blank.reshape(-1), score, label, hat=topology.hat)
        # The wait of a step: n * (2k + 1 + D) numbers.
        score, label, step_score = arrays.to_host(score=score, label=label, step_score=step_score)
        label = np.where(label < 0, -1, self.ids[layer[:, None], label])
        return score.astype(np.float64), label, step_score.astype(np.float64)
