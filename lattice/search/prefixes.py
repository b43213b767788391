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

    def spell(self, node: int) -> list[int]:
        """The labels of a node, first to last."""
        labels = []
        while self.parent[node] >= 0:
            labels.append(self.label[node])
            node = self.parent[node]
        return labels[::-1]


class Hypotheses(NamedTuple):
    """Prefixes of several examples, (n,) each.

    Attributes
    ----------
    example, node : int64
        The node is that of the prefix in the trie.
    score : float64
        Log-probability in nats.
    level, row : int64
        Where the prediction for the prefix lies: a number of predictions, and a row of them.
    """

    example: np.ndarray
    node: np.ndarray
    score: np.ndarray
    level: np.ndarray
    row: np.ndarray

    def take(self, index) -> "Hypotheses":
        """Those at an index, as NumPy takes it."""
        return Hypotheses(*(array[index] for array in self))

    def followed_by(self, other: "Hypotheses") -> "Hypotheses":
        return Hypotheses(*(np.concatenate(pair) for pair in zip(self, other)))

    def merged(self) -> "Hypotheses":
        """Equal prefixes as one, in the place of the first, with their probabilities added up."""
        # `unique` sorts by node; `inverse` (n,) is the place of each prefix among the distinct ones.
        _, first, inverse = np.unique(self.node, return_index=True, return_inverse=True)
        score = np.full(len(first), -np.inf)
        np.logaddexp.at(score, inverse, self.score)
        order = np.argsort(first)  # back to the order in which they were found
        return self.take(first[order])._replace(score=score[order])


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


def lowest_of_each(hypotheses: Hypotheses, beam: int, examples: int) -> np.ndarray:
    """The score (examples,) that one more prefix needs to be among the best `beam` of its example; -inf with room."""
    chosen = best_of_each(hypotheses.example, hypotheses.score, beam)
    example, lowest = hypotheses.example[chosen], np.full(examples, np.inf)
    np.minimum.at(lowest, example, hypotheses.score[chosen])
    return np.where(np.bincount(example, minlength=examples) < beam, -np.inf, lowest)
