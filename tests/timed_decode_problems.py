"""Small problems for the searches whose arcs take several frames, and both searches written to be obviously right."""

from functools import partial
from itertools import product

import numpy as np

from tests import decode_problems, joint_oracle, oracle
from tests.decode_problems import DecodeProblem, Found, Kept, add, best_of, decode_problem, listed, lowest_of


class TimedProblem(DecodeProblem):
    """A problem of "tdt" or "multiblank"."""

    @property
    def is_tdt(self):
        return self.topology.name == "tdt"

    @property
    def tail(self):
        return len(self.topology.durations) if self.is_tdt else 0

    @property
    def tokens(self):
        return len(self.weight) - self.tail

    @property
    def most(self):
        """Labels in a frame at most."""
        return 1 if self.is_tdt and self.topology.durations[0] else self.max_labels_per_frame

    @property
    def blanks(self):
        """{id: frames} of the blanks that take a step by themselves; of the one blank of "tdt", None."""
        blank = self.blank % self.tokens
        if self.is_tdt:
            return {blank: None}
        return {blank: 1} | {blank - 1 - i: d for i, d in enumerate(self.topology.durations)}

    def ids(self, b):
        """The ids in use of an example, ascending, and its blank."""
        row = list(range(self.tokens)) if self.allowed is None else self.allowed[b].tolist()
        return sorted({*self.blanks, *(row[: row.index(-1)] if -1 in row else row)}), self.blank % self.tokens

    def heads(self, b, t, prefix, dtype=np.float64):
        """({id: log-probability}, {frames: log-probability}) of a cell."""
        ids, blank = self.ids(b)
        rows = [*ids, *range(self.tokens, len(self.weight))]
        bias = 0 if self.bias is None else self.bias[rows].astype(dtype)
        function, _ = joint_oracle.ACTIVATIONS[self.activation]
        predictor = self.predictor.vector([blank, *prefix]).astype(dtype)
        logits = function(self.encoder[b, t].astype(dtype) + predictor) @ self.weight[rows].astype(dtype).T + bias
        token, duration = (oracle.log_softmax(part) if len(part) else part for part in np.split(logits, [len(ids)]))
        return dict(zip(ids, token, strict=True)), dict(zip(self.topology.durations, duration))

    def arcs(self, b, t, prefix, dtype=np.float64):
        """[(label, or None for a blank, frames, score)] out of a cell."""
        tokens, durations = self.heads(b, t, prefix, dtype)
        sigma, found = dtype(self.topology.sigma), []
        for token, score in tokens.items():
            label = None if token in self.blanks else token
            if self.is_tdt:
                found += [(label, d, score + s - sigma) for d, s in durations.items() if label is not None or d]
            else:
                found.append((label, self.blanks.get(token, 0), score - sigma))
        return found


def timed_problem(seed, topology, *, vocab=6, blank=-1, blank_lead=1.0, allowed=None, **options):
    """A ragged random problem, `decode_problem` with more ids and with durations."""
    tail = len(topology.durations) if topology.name == "tdt" else 0
    problem = decode_problem(
        seed, topology=topology, vocab=vocab, blank=blank, blank_lead=blank_lead, allowed=allowed, **options
    )
    rng, dtype = np.random.default_rng(seed + 1000), problem.weight.dtype
    weight = np.concatenate([problem.weight, (2 * rng.standard_normal((tail, problem.weight.shape[1]))).astype(dtype)])
    bias = problem.bias
    if bias is not None:
        bias = np.concatenate([bias, (0.5 * rng.standard_normal(tail)).astype(dtype)])
    return TimedProblem(**vars(problem) | {"weight": weight, "bias": bias})


def greedy(problem, b, dtype=np.float64):
    """What is found in one example."""
    return greedy_walk(problem, b, dtype)[0]


def greedy_walk(problem, b, dtype=np.float64):
    """(what is found in one example, whether the walk ends with a blank that leads to T)."""

    def likeliest(scores):
        return min(scores, key=lambda key: (-scores[key], key))

    found, t, count, sigma = Found([], dtype(0), [], []), 0, 0, dtype(problem.topology.sigma)
    while t < problem.lengths[b]:
        tokens, durations = problem.heads(b, t, found.labels, dtype)
        token = likeliest(tokens)
        if token not in problem.blanks and count >= problem.most:
            token = likeliest({v: tokens[v] for v in problem.blanks})
        emits = token not in problem.blanks
        if problem.is_tdt:
            d = likeliest(durations)
            if not emits and not d:
                d = min(d for d in durations if d)
            score = tokens[token] + durations[d] - sigma
        else:
            d, score = problem.blanks.get(token, 0), tokens[token] - sigma
        found = found._replace(score=found.score + score)
        if emits:
            found.labels.append(token)
            found.frames.append(t)
            found.label_scores.append(score)
        t, count = t + d, 0 if d else count + 1
    return found, not emits and t == problem.lengths[b]


def beam_search(problem, b, beam, until=None):
    """[Found, ...] of one example, best first, prefixes in dictionaries; or what waits for frame `until`."""
    T, waiting = problem.lengths[b], {0: {(): Kept(0.0, 0.0)}}
    until = T if until is None else until
    for t in range(until):
        level = best_of(waiting.pop(t, {}), beam)
        for number in range(problem.most + 1):
            longer = {}
            for prefix, kept in level.items():
                for label, d, score in problem.arcs(b, t, prefix):
                    if label is None and t + d <= T:
                        add(waiting.setdefault(t + d, {}), prefix, kept.along(score))
                    elif label is not None and t + d < T:
                        longer.setdefault(d, {})[(*prefix, label)] = kept.along(score, (t, score))
            if number == problem.most:
                break
            steps = {*problem.topology.durations, *(() if problem.is_tdt else (1,))} - {0}
            room = {d: lowest_of(waiting.get(t + d, {}), beam) for d in steps if t + d <= T}
            level = {}
            for d, found in longer.items():
                needed = room[d] if d else min(room.values(), default=np.inf)
                for prefix, kept in best_of(found, beam).items():
                    if kept.score >= needed:
                        add(waiting.setdefault(t + d, {}) if d else level, prefix, kept)
    return listed(best_of(waiting.get(until, {}), beam))


def every_alignment(problem, b, labels, dtype=np.float64):
    """(score, [(frame, score) of each label]) of the alignments that hold to the limit of labels in a frame."""
    T, cells = problem.lengths[b], {}

    def walk(t, emissions, score, count):
        if t == T and len(emissions) == len(labels):
            yield score, emissions
        if t >= T:
            return
        u = len(emissions)
        if (t, u) not in cells:
            cells[t, u] = problem.arcs(b, t, labels[:u], dtype)
        for label, d, arc in cells[t, u]:
            if label is None:
                yield from walk(t + d, emissions, score + arc, 0)
            elif u < len(labels) and label == labels[u] and count < problem.most and t + d < T:
                yield from walk(t + d, [*emissions, (t, arc)], score + arc, 0 if d else count + 1)

    yield from walk(0, [], dtype(0), 0)


exact_score = partial(decode_problems.exact_score, alignments=every_alignment)


def every_sequence(problem, b):
    """All label sequences that an example can have."""
    ids, _ = problem.ids(b)
    labels = [v for v in ids if v not in problem.blanks]
    most = problem.lengths[b] * problem.most
    sequences = (list(found) for length in range(most + 1) for found in product(labels, repeat=length))
    return [found for found in sequences if exact_score(problem, b, found) > -np.inf]
