"""The parts of the sampled-softmax study: its rows, a training step, decoding, what is measured, table and picture."""
