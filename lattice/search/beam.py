"""The walk of the beam search from frame to frame, all examples at once."""

import numpy as np

from ..inputs.decode import DecodeProblem
from .predictions import Predictions, Predictor
from .prefixes import Emissions, Prefixes, Trie, best_of_each, lowest_of_each
from .scorer import Scorer


class BeamSearch:
    """Frame-synchronous search. The set that enters a frame holds at most `beam` distinct prefixes of each example.

    Everything but predictions and logits is kept on the host. Prefixes of a level are in the order of its predictions,
    so prefix i of a level has row i of them.
    """

    def __init__(self, problem: DecodeProblem, beam: int):
        self.problem, self.beam = problem, beam
        self.scorer, self.predictor = Scorer(problem, beam), Predictor(problem)
        self.trie, self.emissions = Trie(len(problem.lengths), len(problem.weight)), Emissions()
        monotonic, paired = problem.topology.moves
        # Whether a label stays on its frame, and how many do. In a pair one does, until the blank behind it.
        self.stays, self.most = paired or not monotonic, 1 if monotonic else problem.most_labels
        self.broken = np.zeros(len(problem.lengths), bool)  # (B,) has met a row of logits with NaN or +inf

    def run(self, nbest: int):
        """(alignments, score): best alignments of `nbest` prefixes of each example, and their scores (B, nbest)."""
        lengths = self.problem.lengths
        advance = self._within if self.stays else self._monotonic
        live, predictions, ended = self._start(), self.predictor.start(), []
        for t in range(lengths.max()):
            start = live
            live, levels = advance(t, start, predictions)
            ends = lengths[live.example] == t + 1
            # An example that broke in this frame ends with the prefixes that it entered the frame with.
            ended += [start.take(self.broken[start.example]), live.take(ends)]
            live = live.take(~ends)
            if not len(live.node):
                break
            # From here on one level, whose predictions stand in the order of the prefixes.
            live = live.take(np.argsort(live.level, kind="stable"))
            parts = [(level, live.row[live.level == number]) for number, level in enumerate(levels)]
            predictions = self.predictor.join([(level, rows) for level, rows in parts if len(rows)])
            live = live._replace(level=np.zeros_like(live.level), row=np.arange(len(live.row)))
        return self._list(ended, nbest)

    def _start(self) -> Prefixes:
        """One empty prefix of each example. Node b of the trie is example b's, and so is row b of the predictions."""
        examples = np.arange(len(self.broken))
        zeros = np.zeros(len(examples))
        return Prefixes(examples, examples, zeros, zeros, np.full_like(examples, -1), np.zeros_like(examples), examples)

    def _score(self, t: int, level: Prefixes, predictions: Predictions):
        """(scores of the blank (n,), scores of each label (n, k), labels (n, k)); -inf in broken examples."""
        scores, labels = self.scorer(level.example, np.full(len(level.node), t), predictions.rows[0])
        self.broken[level.example[np.isnan(scores[:, 0])]] = True
        scores = np.where(self.broken[level.example, None], -np.inf, scores)
        return scores[:, 0], scores[:, 1:], labels

    def _emit(self, t: int, source: Prefixes, label, arc_score) -> Prefixes:
        """Prefixes `source` with one more label each (n,), emitted in frame t by an arc with this score (n,)."""
        emission = self.emissions.add(source.emission, label, t, arc_score)
        return source.along(arc_score)._replace(node=self.trie.extend(source.node, label), emission=emission)

    def _within(self, t: int, level: Prefixes, predictions: Predictions):
        """(prefixes that leave frame t, predictions of each level); level i has emitted i labels in the frame."""
        levels, reached = [predictions], level.take(slice(0))
        for number in range(self.most + 1):
            blank_score, label_score, labels = self._score(t, level, levels[-1])
            leaves = level.along(blank_score)
            # A prefix may leave the frame from several levels, as it may be emitted in several ways.
            reached = reached.followed_by(leaves.take(leaves.score > -np.inf)).merged()
            if number == self.most:
                break
            parent = np.repeat(np.arange(len(labels)), labels.shape[1])  # (n * k,) the prefix that a label extends
            example, total = level.example[parent], level.score[parent] + label_score.ravel()
            # Labels that would not enter the set by themselves are not followed.
            needed = lowest_of_each(reached, self.beam, len(self.broken))[example]
            chosen = best_of_each(example, np.where(total < needed, -np.inf, total), self.beam)
            if not len(chosen):
                break
            parent, label = parent[chosen], labels.ravel()[chosen]
            levels.append(self.predictor.extend(levels[-1], parent, label))
            level = self._emit(t, level.take(parent), label, label_score.ravel()[chosen])
            level = level._replace(level=np.full(len(chosen), number + 1), row=np.arange(len(chosen)))
        reached = reached.take(~self.broken[reached.example])
        return reached.take(best_of_each(reached.example, reached.score, self.beam)), levels

    def _monotonic(self, t: int, level: Prefixes, predictions: Predictions):
        """(prefixes that leave frame t, predictions of those that took its blank, and of those that took a label)."""
        blank_score, label_score, labels = self._score(t, level, predictions)
        stays = self._merge(t, level, blank_score, label_score, labels)
        # (n, k + 1), column 0 is the blank
        score = np.concatenate([stays.score[:, None], level.score[:, None] + label_score], axis=1)
        ids = np.concatenate([np.full((len(labels), 1), self.problem.blank_id), labels], axis=1)
        parent = np.repeat(np.arange(len(ids)), ids.shape[1])
        example, column = level.example[parent], np.tile(np.arange(ids.shape[1]), len(ids))
        # As `greedy` has it, equal scores of one prefix go to the lower id, be that the blank's.
        chosen = best_of_each(example, score.ravel(), self.beam, parent, ids.ravel())
        parent, label, emits = parent[chosen], ids.ravel()[chosen], column[chosen] > 0
        found, emitting = stays.take(parent), parent[emits]
        longer = self._emit(t, level.take(emitting), label[emits], label_score[emitting, column[chosen][emits] - 1])
        for array, part in zip(found, longer):
            array[emits] = part
        # A prefix that has seen its last frame needs no prediction.
        goes = emits & (self.problem.lengths[example[chosen]] > t + 1)
        found.row[goes] = np.arange(goes.sum())
        levels = [predictions]
        if goes.any():
            levels.append(self.predictor.extend(predictions, parent[goes], label[goes]))
        return found._replace(level=emits.astype(np.int64)), levels

    def _merge(self, t: int, level: Prefixes, blank_score, label_score, labels) -> Prefixes:
        """The prefixes of a level behind their blanks, and behind labels that lead to them from others of the level.

        Those labels are closed: `label_score` (n, k) is changed in place.
        """
        stays = level.along(blank_score)
        parent, last = self.trie.last(level.node)  # (n,) each
        # (n,) where each prefix's parent stands in the level; a wrong place where it does not, which `meets` tells.
        order = np.argsort(level.node)
        place = order[np.minimum(np.searchsorted(level.node[order], parent), len(order) - 1)]
        meets = (level.node[place] == parent)[:, None] & (labels[place] == last[:, None])
        # Parent and last label make a prefix, so no prefix is met twice, and no index stands twice below.
        into, column = np.nonzero(meets)
        source = level.take(place[into]).along(label_score[place[into], column])
        stays.score[into] = np.logaddexp(stays.score[into], source.score)
        better = source.best > stays.best[into]
        into_better, arcs = into[better], (place[into][better], column[better])
        stays.best[into_better] = source.best[better]
        emission = stays.emission.copy()
        emission[into_better] = self.emissions.add(source.emission[better], labels[arcs], t, label_score[arcs])
        label_score[place[into], column] = -np.inf
        return stays._replace(emission=emission)

    def _list(self, ended: list[Prefixes], nbest: int):
        """(alignments, score) of `run`; each entry of `ended` holds all prefixes of its examples."""
        B = len(self.broken)
        alignments, score = [[] for _ in range(B * nbest)], np.full((B, nbest), -np.inf)
        score[self.broken] = np.nan
        found = ended[0].followed_by(*ended[1:])
        found = found.take(best_of_each(found.example, found.score, nbest))
        rank = np.arange(len(found.example)) - np.searchsorted(found.example, found.example)  # 0 for the best
        score[found.example, rank] = np.where(self.broken[found.example], np.nan, found.score)
        places = (found.example * nbest + rank).tolist()
        for place, alignment in zip(places, self.emissions.alignments(found.emission)):
            alignments[place] = alignment
        return alignments, score
