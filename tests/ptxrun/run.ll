; What runs translated threads: `note` writes an access of memory into the log, `run` lets every thread that does not wait go on,
; in a given order. Words behind a dollar sign are those of words.py, and BODY is the kernel. `run` gives the number of
; the thread that met a fault, counted from 1, or 0.
define internal void @note(ptr %block, ptr %thread, i64 %address, i64 %value, i64 %meta) {
  %pc = getelementptr i64, ptr %block, i64 ${LOG_COUNT}
  %count = load i64, ptr %pc
  %next = add i64 %count, 1
  store i64 %next, ptr %pc
  %pr = getelementptr i64, ptr %block, i64 ${LOG_ROOM}
  %room = load i64, ptr %pr
  %fits = icmp slt i64 %count, %room
  br i1 %fits, label %write, label %done
write:
  %pl = getelementptr i64, ptr %block, i64 ${LOG}
  %log = load i64, ptr %pl
  %base = inttoptr i64 %log to ptr
  %at = mul i64 %count, 6
  %e0 = getelementptr i64, ptr %base, i64 %at
  store i64 %address, ptr %e0
  %e1 = getelementptr i64, ptr %e0, i64 1
  store i64 %value, ptr %e1
  %e2 = getelementptr i64, ptr %e0, i64 2
  store i64 %meta, ptr %e2
  %pb = getelementptr i64, ptr %block, i64 ${BLOCK}
  %number = load i64, ptr %pb
  %high = shl i64 %number, 16
  %pt = getelementptr i64, ptr %thread, i64 ${TID}
  %tid = load i64, ptr %pt
  %who = or i64 %high, %tid
  %e3 = getelementptr i64, ptr %e0, i64 3
  store i64 %who, ptr %e3
  %pe = getelementptr i64, ptr %block, i64 ${BLOCK_EPOCH}
  %epoch = load i64, ptr %pe
  %e4 = getelementptr i64, ptr %e0, i64 4
  store i64 %epoch, ptr %e4
  %pw = getelementptr i64, ptr %thread, i64 ${EPOCH}
  %warp = load i64, ptr %pw
  %e5 = getelementptr i64, ptr %e0, i64 5
  store i64 %warp, ptr %e5
  br label %done
done:
  ret void
}
define i64 @run(ptr %threads, i64 %words, ptr %order, i64 %count, ptr %block) {
entry:
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%next, %step]
  %more = icmp slt i64 %i, %count
  br i1 %more, label %look, label %end
look:
  %po = getelementptr i64, ptr %order, i64 %i
  %which = load i64, ptr %po
  %at = mul i64 %which, %words
  %thread = getelementptr i64, ptr %threads, i64 %at
  %pw = getelementptr i64, ptr %thread, i64 ${WAIT}
  %wait = load i64, ptr %pw
  %runs = icmp eq i64 %wait, ${RUNS}
  br i1 %runs, label %go, label %step
go:
  %result = call i64 @"${BODY}"(ptr %thread, ptr %block)
  %fault = icmp slt i64 %result, 0
  br i1 %fault, label %bad, label %good
bad:
  %told = add i64 %which, 1
  ret i64 %told
good:
  %over = icmp eq i64 %result, 0
  %state = select i1 %over, i64 ${RETURNED_ALL}, i64 ${WAITS}
  store i64 %state, ptr %pw
  store i64 %result, ptr %thread
  br label %step
step:
  %next = add i64 %i, 1
  br label %loop
end:
  ret i64 0
}
