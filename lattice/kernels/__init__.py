"""Everything numba compiles: scalar maths in `cells`, then one module for each stage of the walk."""
