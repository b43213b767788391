"""For the studies, which use parts of the demo as `examples.digit_strings`; an example itself is run as a file."""
