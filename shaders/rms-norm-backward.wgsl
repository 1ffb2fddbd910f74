// rmsNormBackward: dx[n,c] = rstd·(gain·dout − x·rstd²·mean_c(gain·dout·x)) (+ add[n,c]); dgain[c] = Σ_n dout·x·rstd.
// One dispatch, two kinds of workgroup: the first ceil(C/8) own 8 columns of dgain each (SIZE/8 invocations walk the rows of a
// column, N ascending within each, and are summed in order; neighbours own neighbouring columns), the other N own a row of dx
// each. No atomics.
//
// Bindings   0 x [N,C]   1 gain [C]   2 rstd [N]   3 dout [N,C]   4 add [N,C], unused if !ADD   5 dx [N,C]   6 dgain [C]
// Constants  N C; ADD; SIZE a multiple of 8; GRID_X workgroups in a grid row
// Dispatch   ceil(C/8) + N workgroups of SIZE, folded to rows of GRID_X
// Twin       rmsNormBackward in tensor/twin-ops.ts; tolerance 1e-5 of the largest element
// Source     derivative of Zhang and Sennrich, arXiv 1910.07467
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> gain: array<f32>;
@group(0) @binding(2) var<storage, read> rstd: array<f32>;
@group(0) @binding(3) var<storage, read> dout: array<f32>;
@group(0) @binding(4) var<storage, read> add: array<f32>;
@group(0) @binding(5) var<storage, read_write> dx: array<f32>;
@group(0) @binding(6) var<storage, read_write> dgain: array<f32>;

const COLUMN_GROUPS = (C + 7u) / 8u;

var<workgroup> parts: array<f32, SIZE>;
var<workgroup> folded: array<f32, 8>;

@compute @workgroup_size(SIZE)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let task = group.x + group.y * GRID_X;
  let by_column = task < COLUMN_GROUPS;
  let column = task * 8u + thread % 8u;
  let n = task - min(task, COLUMN_GROUPS);
  let start = min(n, N - 1u) * C;
  var part = 0.0;
  if (by_column) {
    if (column < C) {
      for (var row = thread / 8u; row < N; row += SIZE / 8u) {
        part += dout[row * C + column] * x[row * C + column] * rstd[row];
      }
    }
  } else {
    for (var c = thread; c < C; c += SIZE) {
      part += gain[c] * dout[start + c] * x[start + c];
    }
  }
  parts[thread] = part;
  workgroupBarrier();
  if (thread < 8u) {
    var sum = 0.0;
    for (var i = 0u; i < SIZE / 8u; i++) {
      sum += parts[i * 8u + thread];
    }
    folded[thread] = sum;
    if (by_column && task * 8u + thread < C) {
      dgain[task * 8u + thread] = sum;
    }
  }
  workgroupBarrier();
  if (!by_column && n < N) {
    var dot = 0.0;
    for (var i = 0u; i < 8u; i++) {
      dot += folded[i];
    }
    let r = rstd[n];
    let pull = r * r * dot / f32(C);
    for (var c = thread; c < C; c += SIZE) {
      var value = r * (gain[c] * dout[start + c] - x[start + c] * pull);
      if (ADD) {
        value += add[start + c];
      }
      dx[start + c] = value;
    }
  }
}
