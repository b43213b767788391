"""The parts of the study of durations: networks of two topologies, what is measured of them, the page."""
