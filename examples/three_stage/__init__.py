"""The parts of the three-stage pipeline: its rows, the training step of each stage, alignments, decoding, what is measured."""
