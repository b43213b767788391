"""The parts of the pruning study: a network with k2's simple loss beside its own, bands, what is measured, the page."""
