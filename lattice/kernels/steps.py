"""Arcs that take several frames ("tdt", "multiblank"): which steps there are, and how they are scored.

A step is a number of frames. Column n of `steps` (2, D) int32 holds its frames, which ascend, and who may take it:
`BLANK`, `LABEL` or both. A blank arc with step n scores blank_score[c] + step_score[n, c], and a label arc with it
label_score[c] + step_score[n, c]; `step_score` is (D, cells), a row a step, and at most 0. So a cell has two scores as
in every topology, and D more:

============  =====================  ==================  ====================================================
topology      blank_score            label_score         step_score
============  =====================  ==================  ====================================================
"tdt"         log p(blank)           log p(label)        log p(duration) - sigma
"multiblank"  0                      log p(label)        -sigma for the label's step of 0 frames, and behind it
                                                         log p(blank that takes the step) - sigma
============  =====================  ==================  ====================================================

A blank leads to (t + d, u), at most to t + d = T. A label leads to (t + d, u + 1), below T. The last arc is a blank
that leads to (T, U). A cell that is not computed has the scores of closed arcs, as ever, or upper bounds on both
(`CellState`); its row of `step_score` holds upper bounds then.
"""

BLANK, LABEL = 1, 2
"""Bits of who may take a step."""
