"""The beam search where arcs take several frames ("tdt", "multiblank"), all examples at once."""

from itertools import count

import numpy as np

from ..inputs.decode import DecodeProblem
from ..kernels.steps import BLANK, LABEL
from .beam import BeamSearch
from .predictions import Predictions
from .prefixes import Prefixes, best_of_each, lowest_of_each


class TimedBeamSearch(BeamSearch):
    """Frame-synchronous search. The set that enters a frame holds at most `beam` distinct prefixes of each example.

    An arc leads to the set that waits for its last frame, where equal prefixes meet, whichever frames they come from.
    Only prefixes that wait for one frame are compared. The set that waits for the frame behind an example's last one is
    what was found in the example. Frames that nobody waits for are not looked at.
    """

    def __init__(self, problem: DecodeProblem, beam: int):
        super().__init__(problem, beam)
        frames, takers = problem.topology.steps
        # Frames -> row of the scores of steps, for those that a blank may take, and for those that a label may take.
        self.blank_steps, self.label_steps = (
            {int(frames[n]): n for n in np.flatnonzero(takers & taker)} for taker in (BLANK, LABEL)
        )
        self.waiting = {0: self._start()}  # frame -> those that wait for it
        self.levels: dict[int, Predictions] = {}  # `level` of a prefix -> predictions
        self.numbers = count()

    def run(self, nbest: int):
        """As of `BeamSearch`."""
        self.levels[next(self.numbers)], ended = self.predictor.start(), []
        while self.waiting:
            t = min(self.waiting)
            found, broken = self.waiting.pop(t), self.broken.copy()
            ends = self.problem.lengths[found.example] == t
            ended.append(found.take(ends))
            live = found.take(~ends)
            live = live.take(best_of_each(live.example, live.score, self.beam))
            if len(live.node):
                self._walk(t, *self._joined(live))
            if (self.broken != broken).any():
                # An example that broke in this frame ends with the prefixes that it entered the frame with.
                ended.append(live.take(self.broken[live.example]))
                whole = {at: found.take(~self.broken[found.example]) for at, found in self.waiting.items()}
                self.waiting = {at: found for at, found in whole.items() if len(found.node)}
            used = {number for found in self.waiting.values() for number in np.unique(found.level).tolist()}
            self.levels = {number: self.levels[number] for number in used}
        return self._list(ended, nbest)

    def _joined(self, live: Prefixes) -> tuple[Prefixes, Predictions]:
        """Prefixes, and their predictions in the same order."""
        live = live.take(np.argsort(live.level, kind="stable"))
        parts = [(self.levels[number], live.row[live.level == number]) for number in np.unique(live.level).tolist()]
        number, predictions = next(self.numbers), self.predictor.join(parts)
        self.levels[number] = predictions
        return live._replace(level=np.full_like(live.level, number), row=np.arange(len(live.row))), predictions

    def _walk(self, t: int, level: Prefixes, predictions: Predictions) -> None:
        """Let prefixes go on from frame t, level by level; level i has emitted i labels in the frame."""
        for depth in range(self.most + 1):
            blank_score, label_score, step_score, labels = self._score(t, level, predictions)
            for d, n in self.blank_steps.items():
                self._wait(t + d, level.along(blank_score + step_score[n]))
            if depth == self.most:
                break
            # (n * k,) the prefix that each label extends.
            parent, labels = np.repeat(np.arange(len(labels)), labels.shape[1]), labels.ravel()
            arcs = {d: label_score.ravel() + step_score[n, parent] for d, n in self.label_steps.items()}
            example, score = level.example[parent], level.score[parent]
            chosen = {d: self._choose(t, d, example, score + arc) for d, arc in arcs.items()}
            pairs, rows = distinct(chosen)
            if not len(pairs):
                break
            predictions = self.predictor.extend(predictions, parent[pairs], labels[pairs])
            number = next(self.numbers)
            self.levels[number], before, level = predictions, level, level.take(slice(0))
            for d, index in chosen.items():
                longer = self._emit(t, before.take(parent[index]), labels[index], arcs[d][index])
                longer = longer._replace(level=np.full(len(index), number), row=rows[d])
                if d:
                    self._wait(t + d, longer)
                else:
                    level = longer
            if not len(level.node):
                break

    def _wait(self, frame: int, prefixes: Prefixes) -> None:
        """Let prefixes wait for a frame, but for those whose example ends before, and those without a probability."""
        prefixes = prefixes.take((prefixes.score > -np.inf) & (self.problem.lengths[prefixes.example] >= frame))
        if len(prefixes.node):
            there = self.waiting.get(frame)
            self.waiting[frame] = (there.followed_by(prefixes) if there else prefixes).merged()

    def _choose(self, t: int, d: int, example, total) -> np.ndarray:
        """Indices of the labels that go on from frame t by a step of d frames, best first, example by example."""
        lengths, further = self.problem.lengths, self.blank_steps | self.label_steps
        # Labels that would not enter the set that waits by themselves are not followed.
        if d:
            needed = np.where(lengths > t + d, self._needed(t + d), np.inf)
        else:
            needed = np.min([self._needed(t + then) for then in further if then], axis=0)
        return best_of_each(example, np.where(total < needed[example], -np.inf, total), self.beam)

    def _needed(self, frame: int) -> np.ndarray:
        """The score (B,) that a prefix needs to be among the best that wait for a frame; +inf behind the last frame."""
        needed = np.full(len(self.broken), -np.inf)
        if frame in self.waiting:
            needed = lowest_of_each(self.waiting[frame], self.beam, len(needed))
        return np.where(self.problem.lengths >= frame, needed, np.inf)


def distinct(chosen: dict[int, np.ndarray]):
    """Every index of several (n,) once, those under 0 first; and under each key the places of its own among them."""
    stay = chosen.get(0, np.zeros(0, np.int64))
    every = np.concatenate([stay, np.setdiff1d(np.concatenate(list(chosen.values())), stay)])
    order = np.argsort(every)
    return every, {d: order[np.searchsorted(every, index, sorter=order)] for d, index in chosen.items()}
