"""The parts of the three-stage pipeline: its rows, the step of each stage, alignments, decoding, what is measured."""
