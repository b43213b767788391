"""An n-gram language model over labels, by nltk, and the scores it gives to hypotheses."""

import functools
import importlib.util
from collections.abc import Iterable, Sequence

import numpy as np

BEGIN, END = "<s>", "</s>"


class LanguageModel:
    """Interpolated n-grams of labels, smoothed as Witten and Bell (1991) do.

    Parameters
    ----------
    order : int
        n: a label's probability depends on the n - 1 before it.
    sequences : iterable of label sequences
        The training transcripts.
    """

    def __init__(self, order: int, sequences: Iterable[Sequence[int]]):
        if importlib.util.find_spec("nltk") is None:
            raise RuntimeError('the language model needs nltk: pip install -e ".[speech]"')
        from nltk.lm import WittenBellInterpolated
        from nltk.lm.preprocessing import padded_everygram_pipeline

        self.order = order
        ngrams, vocabulary = padded_everygram_pipeline(order, [[*map(str, labels)] for labels in sequences])
        self.model = WittenBellInterpolated(order)
        self.model.fit(ngrams, vocabulary)
        # The same few thousand histories come up in every list.
        self.label_score = functools.cache(self.model.logscore)

    def score(self, labels: Sequence[int]) -> float:
        """Log-probability of a whole sequence and its end, in nats."""
        padded = [BEGIN] * (self.order - 1) + [*map(str, labels), END]
        places = range(self.order - 1, len(padded))
        bits = sum(self.label_score(padded[k], tuple(padded[k - self.order + 1 : k])) for k in places)
        return float(bits * np.log(2))


def crossed_models(order: int, sequences: list[Sequence[int]], folds: int) -> list[LanguageModel]:
    """For fold k the model of the sequences n with n % folds != k: no sequence is scored by a model that read it."""
    return [
        LanguageModel(order, [labels for n, labels in enumerate(sequences) if n % folds != fold])
        for fold in range(folds)
    ]
