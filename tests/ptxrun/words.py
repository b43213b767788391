"""The words that translated code and the machine share: the rows of a thread and of a block, faults, states."""

RESUME, WAIT, VALUE, LANE, CLAMP, MASK, RESULT, FLAG, TID, RETURNED, EPOCH, ARGUMENT = range(12)
REGISTERS = 20
"""Words of a thread, 8 bytes each: where to go on, whether it waits, what it hands in at a warp's instruction (value,
lane, clamp, mask) and gets back (result, flag), its number, what a called function returned, how many warp barriers it
passed, arguments of a call (up to `REGISTERS`), then its registers."""

NTID, CTAID_X, CTAID_Y, NCTAID_X, NCTAID_Y, PARAMETERS, SHARED, GLOBALS, GLOBAL_COUNT = range(9)
SHAREDS, SHARED_COUNT, COVER, FUEL = range(9, 13)
FAULT, FAULT_ADDRESS, FAULT_PLACE, LOG, LOG_COUNT, LOG_ROOM, BLOCK_EPOCH, BLOCK, EX2, RCP, SEEDED = range(13, 24)
CONTEXT_WORDS = 24
"""Words of what the threads of a block share: its size and place, tables of addresses, what was reached, the fault that
was found, the log of accesses. `EX2` and `RCP` are float64 factors on approximate results. `SEEDED` is the number of
the fault that is made on purpose, or 0."""

OUTSIDE, MISALIGNED, DIVIDED, ENDLESS = 1, 2, 3, 4
RUNS, WAITS, RETURNED_ALL = 0, 1, 2
GAP = 64
"""Bytes between shared arrays that belong to none."""
