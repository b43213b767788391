"""Faults of `seeds.py` that no case tells because they change nothing, and why."""

EQUIVALENT = (
    ("choose_cuda|leave_out_cuda|narrow_cuda|sum_rows_cuda", "barrier", "left out, 1 of its line",
     r"open_ids = block_sum.*|left = block_sum\(leave_out.*|if int\(block_sum.*|total = block_sum\(sum_strided.*",
     "It parts what was read of `sums` from what is written next, and this is the kernel's first block_sum."),
    ("select_cuda", "barrier", ".*", r"cuda\.syncthreads\(\)",
     "Each thread closes cells that no other one reads, and block_sum's barriers stand before all that threads share."),
    ("path_rows_cuda", "warp barrier", ".*", ".*",
     "Gradients in bfloat16 go into an array of their own, so that no lane writes over a logit (float32 and float64 tell)."),
    ("sum_rows_cuda", "shared array", "256 bytes, 0", "",
     "It has a place for each of 32 warps, and the block has policy.THREADS = 256 threads: 8 warps."),
    ("extend_cuda|trace_cuda", "parameter", r"left\.shape\[1\] <-> left\.shape\[2\]", "", "Both are always 2."),
    ("bound_cuda", "argument", "blank_score <-> label_score", "", "Both are filled with -inf."),
    ("leave_out_cuda", "argument", "blank <-> label", "", "Nothing but the sum of the two is used."),
    ("select_cuda", "argument", "blank <-> label", "", "Both are filled with -inf, in the same cells."),
    ("narrow_cuda|select_cuda", "argument", "alpha <-> beta", "",
     "Nothing but their sum is used, and either is scratch afterwards."),
    ("best_cuda", "loop", "once more .*", "value, place = next_of_row.*",
     "`entry` gives -inf beyond the row, which no comparison lets in."),
)  # fmt: skip
"""(kernel, kind, what, line of the source, why): regular expressions that match in full, but for the kind and the reason."""
