"""The search for labels: scores of what hypotheses may do next, the caller's predictor, prefixes, and the beam."""
