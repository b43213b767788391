"""Vocabularies for sampled softmax: distributions, draws and positives (Lee et al. 2022)."""

from .distributions import ctc_posterior, log_uniform, mixture, uniform, unigram
from .vocabulary import SampledVocabulary, allowed_vocabulary, sample_vocabulary

__all__ = [
    "SampledVocabulary",
    "allowed_vocabulary",
    "ctc_posterior",
    "log_uniform",
    "mixture",
    "sample_vocabulary",
    "uniform",
    "unigram",
]
