// rmsNorm: rstd[n] = 1/√(mean_c x² + eps); out[n,c] = x[n,c] · rstd[n] · gain[c]. A workgroup owns a row.
//
// Bindings   0 x [N,C]   1 gain [C]   2 out [N,C]   3 rstd [N]
// Constants  N C; EPS; SIZE invocations a workgroup, FOLD = √SIZE; GRID_X
// Dispatch   N workgroups of SIZE, folded to rows of GRID_X
// Twin       rmsNorm in tensor/twin-ops.ts; tolerance 1e-5 of the largest element
// Source     Zhang and Sennrich, arXiv 1910.07467
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> gain: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
@group(0) @binding(3) var<storage, read_write> rstd: array<f32>;

var<workgroup> parts: array<f32, SIZE>;
var<workgroup> folded: array<f32, FOLD>;

@compute @workgroup_size(SIZE)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let n = group.x + group.y * GRID_X;
  let start = min(n, N - 1u) * C;
  var part = 0.0;
  for (var c = thread; c < C; c += SIZE) {
    let value = x[start + c];
    part += value * value;
  }
  parts[thread] = part;
  workgroupBarrier();
  if (thread < FOLD) {
    var sum = 0.0;
    for (var i = 0u; i < FOLD; i++) {
      sum += parts[thread * FOLD + i];
    }
    folded[thread] = sum;
  }
  workgroupBarrier();
  var squares = 0.0;
  for (var i = 0u; i < FOLD; i++) {
    squares += folded[i];
  }
  let r = 1.0 / sqrt(squares / f32(C) + EPS);
  if (n < N) {
    for (var c = thread; c < C; c += SIZE) {
      out[start + c] = x[start + c] * r * gain[c];
    }
    if (thread == 0u) {
      rstd[n] = r;
    }
  }
}
