; Functions that translated instructions call: the check of an address, directed roundings, approximations and flushing to zero.
define internal i1 @inside(ptr %table, i64 %count, i64 %address, i64 %size) {
entry:
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%next, %step]
  %more = icmp ult i64 %i, %count
  br i1 %more, label %test, label %no
test:
  %at = shl i64 %i, 1
  %p = getelementptr i64, ptr %table, i64 %at
  %q = getelementptr i64, ptr %p, i64 1
  %base = load i64, ptr %p
  %bytes = load i64, ptr %q
  %offset = sub i64 %address, %base
  %end = add i64 %offset, %size
  %begins = icmp ult i64 %offset, %bytes
  %ends = icmp ule i64 %end, %bytes
  %ok = and i1 %begins, %ends
  br i1 %ok, label %yes, label %step
step:
  %next = add i64 %i, 1
  br label %loop
yes:
  ret i1 1
no:
  ret i1 0
}
define internal float @round_down(double %s, double %e) {
  %low = fcmp olt double %e, 0.0
  %bits = bitcast double %s to i64
  %positive = icmp sgt i64 %bits, 0
  %less = sub i64 %bits, 1
  %more = add i64 %bits, 1
  %below = select i1 %positive, i64 %less, i64 %more
  %taken = select i1 %low, i64 %below, i64 %bits
  %d = bitcast i64 %taken to double
  %f = fptrunc double %d to float
  %g = fpext float %f to double
  %above = fcmp ogt double %g, %d
  %fbits = bitcast float %f to i32
  %fpositive = icmp sgt i32 %fbits, 0
  %fless = sub i32 %fbits, 1
  %fmore = add i32 %fbits, 1
  %fbelow = select i1 %fpositive, i32 %fless, i32 %fmore
  %ftaken = select i1 %above, i32 %fbelow, i32 %fbits
  %r = bitcast i32 %ftaken to float
  ret float %r
}
define internal float @round_to_zero(double %s, double %e) {
  %a = fcmp olt double %s, 0.0
  %ns = fneg double %s
  %ne = fneg double %e
  %ps = select i1 %a, double %ns, double %s
  %pe = select i1 %a, double %ne, double %e
  %r = call float @round_down(double %ps, double %pe)
  %nr = fneg float %r
  %out = select i1 %a, float %nr, float %r
  ret float %out
}
define internal double @lost(double %x, double %y, double %s) {
  %b = fsub double %s, %x
  %c = fsub double %s, %b
  %d = fsub double %x, %c
  %f = fsub double %y, %b
  %e = fadd double %d, %f
  ret double %e
}
define internal float @fma_rm(float %a, float %b, float %c) {
  %x = fpext float %a to double
  %y = fpext float %b to double
  %z = fpext float %c to double
  %p = fmul double %x, %y
  %s = fadd double %p, %z
  %e = call double @lost(double %p, double %z, double %s)
  %r = call float @round_down(double %s, double %e)
  ret float %r
}
define internal float @add_rz(float %a, float %b) {
  %x = fpext float %a to double
  %y = fpext float %b to double
  %s = fadd double %x, %y
  %e = call double @lost(double %x, double %y, double %s)
  %r = call float @round_to_zero(double %s, double %e)
  ret float %r
}
define internal float @flush(float %x) {
  %bits = bitcast float %x to i32
  %sign = and i32 %bits, -2147483648
  %zero = bitcast i32 %sign to float
  %exponent = and i32 %bits, 2139095040
  %tiny = icmp eq i32 %exponent, 0
  %r = select i1 %tiny, float %zero, float %x
  ret float %r
}
define internal i16 @to_bf16(float %x) {
  %bits = bitcast float %x to i32
  %nan = fcmp uno float %x, %x
  %last = lshr i32 %bits, 16
  %odd = and i32 %last, 1
  %half = add i32 %odd, 32767
  %up = add i32 %bits, %half
  %cut = lshr i32 %up, 16
  %high = trunc i32 %cut to i16
  %r = select i1 %nan, i16 32767, i16 %high
  ret i16 %r
}
define internal float @mul_ftz(float %x, float %y) {
  %a = call float @flush(float %x)
  %b = call float @flush(float %y)
  %p = fmul float %a, %b
  %r = call float @flush(float %p)
  ret float %r
}
define internal float @ex2(float %x, double %factor) {
  %d = fpext float %x to double
  %e = call double @llvm.exp2.f64(double %d)
  %m = fmul double %e, %factor
  %f = fptrunc double %m to float
  ret float %f
}
define internal float @ex2_ftz(float %x, double %factor) {
  %in = call float @flush(float %x)
  %f = call float @ex2(float %in, double %factor)
  %r = call float @flush(float %f)
  ret float %r
}
define internal float @rcp_f32(float %x, double %factor) {
  %in = call float @flush(float %x)
  %d = fpext float %in to double
  %e = fdiv double 1.0, %d
  %m = fmul double %e, %factor
  %f = fptrunc double %m to float
  %r = call float @flush(float %f)
  ret float %r
}
define internal double @rcp_f64(double %x, double %factor) {
  %bits = bitcast double %x to i64
  %magnitude = and i64 %bits, 9218868437227405312
  %subnormal = icmp eq i64 %magnitude, 0
  %kept = select i1 %subnormal, i64 -9223372036854775808, i64 -4294967296
  %high = and i64 %bits, %kept
  %in = bitcast i64 %high to double
  %e = fdiv double 1.0, %in
  %m = fmul double %e, %factor
  %out = bitcast double %m to i64
  %cut = and i64 %out, -4294967296
  %exponent = and i64 %cut, 9218868437227405312
  %tiny = icmp eq i64 %exponent, 0
  %sign = and i64 %cut, -9223372036854775808
  %taken = select i1 %tiny, i64 %sign, i64 %cut
  %r = bitcast i64 %taken to double
  ret double %r
}
declare double @llvm.exp2.f64(double)
declare float @llvm.fma.f32(float, float, float)
declare double @llvm.fma.f64(double, double, double)
declare float @llvm.sqrt.f32(float)
declare double @llvm.sqrt.f64(double)
declare float @llvm.fabs.f32(float)
declare double @llvm.fabs.f64(double)
declare float @llvm.copysign.f32(float, float)
declare double @llvm.copysign.f64(double, double)
declare float @llvm.roundeven.f32(float)
declare double @llvm.roundeven.f64(double)
declare float @llvm.floor.f32(float)
declare double @llvm.floor.f64(double)
declare float @llvm.ceil.f32(float)
declare double @llvm.ceil.f64(double)
declare float @llvm.trunc.f32(float)
declare double @llvm.trunc.f64(double)
declare i32 @llvm.ctpop.i32(i32)
declare i64 @llvm.ctpop.i64(i64)
declare i32 @llvm.ctlz.i32(i32, i1)
declare i64 @llvm.ctlz.i64(i64, i1)
