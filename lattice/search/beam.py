"""The walk of the beam search from frame to frame, all examples at once."""

import numpy as np

from ..inputs.decode import DecodeProblem
from .predictions import Predictions, Predictor
from .prefixes import Hypotheses, Trie, best_of_each, lowest_of_each
from .scorer import Scorer


class BeamSearch:
    """Frame-synchronous search. The set that enters a frame holds at most `beam` distinct prefixes of each example.

    Everything but predictions and logits is kept on the host. Hypotheses of a level are in the order of its
    predictions, so hypothesis i of a level has row i of them.
    """

    def __init__(self, problem: DecodeProblem, beam: int):
        self.problem, self.beam = problem, beam
        self.scorer, self.predictor = Scorer(problem, beam), Predictor(problem)
        self.trie = Trie(len(problem.lengths), len(problem.weight))
        monotonic, paired = problem.topology.moves
        # Whether a label stays on its frame, and how many do. In a pair one does, until the blank behind it.
        self.stays, self.most = paired or not monotonic, 1 if monotonic else problem.most_labels
        self.broken = np.zeros(len(problem.lengths), bool)  # (B,) has met a row of logits with NaN or +inf

    def run(self, nbest: int):
        """(sequences, score): label lists, `nbest` for each example, and their scores (B, nbest)."""
        lengths = self.problem.lengths
        examples, advance = np.arange(len(lengths)), self._within if self.stays else self._monotonic
        # One empty prefix of each example. Node b of the trie is example b's, and so is row b of the predictions.
        live = Hypotheses(examples, examples, np.zeros(len(lengths)), np.zeros_like(examples), examples)
        predictions, ended = self.predictor.start(), []
        for t in range(lengths.max()):
            start = live
            live, levels = advance(t, start, predictions)
            ends = lengths[live.example] == t + 1
            # An example that broke in this frame ends with the prefixes that it entered the frame with.
            ended += [start.take(self.broken[start.example]), live.take(ends)]
            live = live.take(~ends)
            if not len(live.node):
                break
            # From here on one level, whose predictions stand in the order of the hypotheses.
            live = live.take(np.argsort(live.level, kind="stable"))
            parts = [(level, live.row[live.level == number]) for number, level in enumerate(levels)]
            predictions = self.predictor.join([(level, rows) for level, rows in parts if len(rows)])
            live = live._replace(level=np.zeros_like(live.level), row=np.arange(len(live.row)))
        return self._list(ended, nbest)

    def _score(self, t: int, hypotheses: Hypotheses, predictions: Predictions):
        """(scores with the blank (n,), scores with each label (n, k), labels (n, k)); -inf in broken examples."""
        scores, labels = self.scorer(hypotheses.example, np.full(len(hypotheses.node), t), predictions.rows[0])
        self.broken[hypotheses.example[np.isnan(scores[:, 0])]] = True
        scores = np.where(self.broken[hypotheses.example, None], -np.inf, hypotheses.score[:, None] + scores)
        return scores[:, 0], scores[:, 1:], labels

    def _within(self, t: int, level: Hypotheses, predictions: Predictions):
        """(hypotheses that leave frame t, predictions of each level); level i has emitted i labels in the frame."""
        levels, reached = [predictions], level.take(slice(0))
        for number in range(self.most + 1):
            blank_score, total, labels = self._score(t, level, levels[-1])
            leaves = level._replace(score=blank_score)
            # A prefix may leave the frame from several levels, as it may be emitted in several ways.
            reached = reached.followed_by(leaves.take(blank_score > -np.inf)).merged()
            if number == self.most:
                break
            parent = np.repeat(np.arange(len(labels)), labels.shape[1])  # (n * k,) the hypothesis that a label extends
            example, total = level.example[parent], total.ravel()
            # Labels that would not enter the set by themselves are not followed.
            needed = lowest_of_each(reached, self.beam, len(self.broken))[example]
            chosen = best_of_each(example, np.where(total < needed, -np.inf, total), self.beam)
            if not len(chosen):
                break
            parent, label = parent[chosen], labels.ravel()[chosen]
            levels.append(self.predictor.extend(levels[-1], parent, label))
            node, depth = self.trie.extend(level.node[parent], label), np.full(len(chosen), number + 1)
            level = Hypotheses(example[chosen], node, total[chosen], depth, np.arange(len(chosen)))
        reached = reached.take(~self.broken[reached.example])
        return reached.take(best_of_each(reached.example, reached.score, self.beam)), levels

    def _monotonic(self, t: int, level: Hypotheses, predictions: Predictions):
        """(hypotheses that leave frame t, predictions of those that took its blank, and of those that took a label)."""
        blank_score, total, labels = self._score(t, level, predictions)
        self._merge(level, blank_score, total, labels)
        score = np.concatenate([blank_score[:, None], total], axis=1)  # (n, k + 1), column 0 is the blank
        ids = np.concatenate([np.full((len(labels), 1), self.problem.blank_id), labels], axis=1)
        parent = np.repeat(np.arange(len(ids)), ids.shape[1])
        example, column = level.example[parent], np.tile(np.arange(ids.shape[1]), len(ids))
        # As `greedy` has it, equal scores of one hypothesis go to the lower id, be that the blank's.
        chosen = best_of_each(example, score.ravel(), self.beam, parent, ids.ravel())
        parent, label, emits = parent[chosen], ids.ravel()[chosen], column[chosen] > 0
        node, row = level.node[parent], parent.copy()
        node[emits] = self.trie.extend(node[emits], label[emits])
        # A hypothesis that has seen its last frame needs no prediction.
        goes = emits & (self.problem.lengths[example[chosen]] > t + 1)
        row[goes] = np.arange(goes.sum())
        levels = [predictions]
        if goes.any():
            levels.append(self.predictor.extend(predictions, parent[goes], label[goes]))
        return Hypotheses(example[chosen], node, score.ravel()[chosen], emits.astype(np.int64), row), levels

    def _merge(self, level: Hypotheses, blank_score, total, labels) -> None:
        """Where a label leads from one hypothesis to another, add its probability to the other's blank, and close it.

        `blank_score` (n,) and `total` (n, k) are changed in place.
        """
        parent, last = self.trie.last(level.node)  # (n,) each
        # (n,) where each hypothesis's parent stands in the level; a wrong place where it does not, which `meets` tells.
        order = np.argsort(level.node)
        place = order[np.minimum(np.searchsorted(level.node[order], parent), len(order) - 1)]
        meets = (level.node[place] == parent)[:, None] & (labels[place] == last[:, None])
        # Parent and last label make a prefix, so no hypothesis is met twice, and no index stands twice below.
        into, column = np.nonzero(meets)
        source = place[into]
        blank_score[into] = np.logaddexp(blank_score[into], total[source, column])
        total[source, column] = -np.inf

    def _list(self, ended: list[Hypotheses], nbest: int):
        """(sequences, score) of `run`; each entry of `ended` holds all hypotheses of its examples."""
        B = len(self.broken)
        sequences, score = [[] for _ in range(B * nbest)], np.full((B, nbest), -np.inf)
        score[self.broken] = np.nan
        for found in ended:
            chosen = best_of_each(found.example, found.score, nbest)
            example = found.example[chosen]
            rank = np.arange(len(chosen)) - np.searchsorted(example, example)  # 0 for the best of its example
            score[example, rank] = np.where(self.broken[example], np.nan, found.score[chosen])
            for place, node in zip((example * nbest + rank).tolist(), found.node[chosen].tolist()):
                sequences[place] = self.trie.spell(node)
        return sequences, score
