"""The parts of the digit-string demo: data, network, optimiser, decoding and picture."""
