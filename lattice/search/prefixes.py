"""The bookkeeping of a beam on the host: prefixes, which of them go on, and what was found in the end."""

from typing import NamedTuple

import numpy as np


class Trie:
    """Label sequences as nodes (parent, label), numbered as they are found. Node b is the empty sequence of example b.

    Equal prefixes of an example are one node, found in O(1). Nodes stay until the search is over, about 200 bytes each.
    `ids` is the size of the vocabulary.
    """

    def __init__(self, examples: int, ids: int):
        self.ids = ids
        self.parent, self.label = [-1] * examples, [-1] * examples
        self.children = {}  # (parent * ids + label) -> node

    def extend(self, nodes, labels) -> np.ndarray:
        """The nodes (n,) int64 that extend nodes (n,) by one label each (n,)."""
        found = np.empty(len(nodes), np.int64)
        for i, key in enumerate((nodes * self.ids + labels).tolist()):
            child = self.children.setdefault(key, len(self.parent))
            if child == len(self.parent):
                self.parent.append(key // self.ids)
                self.label.append(key % self.ids)
            found[i] = child
        return found

    def last(self, nodes):
        """(parent, label) of nodes (n,), each (n,) int64; -1 for an empty sequence."""
        nodes = nodes.tolist()
        return (np.fromiter((table[i] for i in nodes), np.int64, len(nodes)) for table in (self.parent, self.label))


class Emissions:
    """Emitted labels, numbered as they are found. Each holds the one before it in its alignment, -1 for none.

    They stay until the search is over, 32 bytes each.
    """

    def __init__(self):
        self.count, self.parts = 0, []

    def add(self, before, label, frame: int, score) -> np.ndarray:
        """The numbers (n,) of labels that are emitted in a frame, each with the score of its arc."""
        self.parts.append((before, label, np.full(len(label), frame), score))
        self.count += len(label)
        return np.arange(self.count - len(label), self.count)

    def alignments(self, numbers) -> list[list[tuple[int, int, float]]]:
        """(label, frame, score) of each label, first to last, of alignments that end with these emissions."""
        columns = [np.concatenate(column).tolist() for column in zip(*self.parts)]
        found: list[list[tuple[int, int, float]]] = []
        for number in numbers.tolist():
            alignment = []
            while number >= 0:
                number, *emission = (column[number] for column in columns)
                alignment.append(tuple(emission))
            found.append(alignment[::-1])
        return found


class Prefixes(NamedTuple):
    """Prefixes of several examples, (n,) each.

    Attributes
    ----------
    example, node : int64
        The node is that of the prefix in the trie.
    score : float64
        Log-probability in nats, summed over alignments.
    best : float64
        Log-probability of the best of these alignments.
    emission : int64
        The last label of that alignment, as `Emissions` numbers it; -1 for none.
    level, row : int64
        Where the prediction for the prefix lies: a number of predictions, and a row of them.
    """

    example: np.ndarray
    node: np.ndarray
    score: np.ndarray
    best: np.ndarray
    emission: np.ndarray
    level: np.ndarray
    row: np.ndarray

    def take(self, index) -> "Prefixes":
        """Those at an index, as NumPy takes it."""
        return Prefixes(*(array[index] for array in self))

    def followed_by(self, *others: "Prefixes") -> "Prefixes":
        return Prefixes(*(np.concatenate(parts) for parts in zip(self, *others)))

    def along(self, arc_score) -> "Prefixes":
        """Each behind an arc with this score (n,)."""
        return self._replace(score=self.score + arc_score, best=self.best + arc_score)

    def merged(self) -> "Prefixes":
        """Equal prefixes as one, in the place of the first, with their probabilities added up."""
        # `unique` sorts by node; `inverse` (n,) is the place of each prefix among the distinct ones.
        _, first, inverse = np.unique(self.node, return_index=True, return_inverse=True)
        score = np.full(len(first), -np.inf)
        np.logaddexp.at(score, inverse, self.score)
        # The best alignment of each, of equal ones the first.
        order = np.lexsort((-self.best, self.node))
        chosen = order[np.unique(self.node[order], return_index=True)[1]]
        distinct = self.take(first)._replace(score=score, best=self.best[chosen], emission=self.emission[chosen])
        return distinct.take(np.argsort(first))  # back to the order in which they were found


def best_of_each(example, score, beam: int, *ties) -> np.ndarray:
    """Indices of the best `beam` of each example, example by example, best first.

    Equal scores are ordered by `ties`, of which the first counts most, and then by their place. A score of -inf is left
    out.
    """
    # The last key counts most, and equal keys keep their order.
    order = np.lexsort((*ties[::-1], -score, example))
    order = order[score[order] > -np.inf]
    # (n,) place within the example: place in all, less the place of the example's first.
    rank = np.arange(len(order)) - np.searchsorted(example[order], example[order])
    return order[rank < beam]


def lowest_of_each(prefixes: Prefixes, beam: int, examples: int) -> np.ndarray:
    """The score (examples,) that one more prefix needs to be among the best `beam` of its example; -inf with room."""
    chosen = best_of_each(prefixes.example, prefixes.score, beam)
    example, lowest = prefixes.example[chosen], np.full(examples, np.inf)
    np.minimum.at(lowest, example, prefixes.score[chosen])
    return np.where(np.bincount(example, minlength=examples) < beam, -np.inf, lowest)
