// rmsNormBackward, rows: dx[n,c] = rstd·(gain·dout − x·rstd²·mean_c(gain·dout·x)) (+ add[n,c]); dgain[c] = Σ_n dout·x·rstd. One
// dispatch, two kinds of invocation: those of the first ceil(C/4/SIZE) workgroups own a quad of columns of dgain each and walk
// the rows in order, the others own a row of dx each. No workgroup memory, no barriers: for software adapters.
//
// Bindings   0 x [N,C/4] vec4   1 gain [C/4] vec4   2 rstd [N]   3 dout [N,C/4] vec4   4 add [N,C/4] vec4, unused if !ADD
//            5 dx [N,C/4] vec4   6 dgain [C/4] vec4
// Constants  N; C (multiple of 4); ADD; SIZE invocations a workgroup; GRID_X
// Dispatch   ceil(C/4/SIZE) + ceil(N/SIZE) workgroups of SIZE, folded to rows of GRID_X
// Twin       rmsNormBackward in tensor/twin-ops.ts; tolerance 1e-5 of the largest element
// Source     derivative of Zhang and Sennrich, arXiv 1910.07467
@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> gain: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> rstd: array<f32>;
@group(0) @binding(3) var<storage, read> dout: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> add: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> dx: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> dgain: array<vec4<f32>>;

const QUADS = C / 4u;
const COLUMN_GROUPS = (QUADS + SIZE - 1u) / SIZE;

@compute @workgroup_size(SIZE)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let task = group.x + group.y * GRID_X;
  if (task < COLUMN_GROUPS) {
    let column = min(task * SIZE + thread, QUADS - 1u);
    var sum = vec4<f32>();
    for (var n = 0u; n < N; n++) {
      sum += dout[n * QUADS + column] * x[n * QUADS + column] * rstd[n];
    }
    if (task * SIZE + thread < QUADS) {
      dgain[column] = sum;
    }
    return;
  }
  let n = (task - COLUMN_GROUPS) * SIZE + thread;
  if (n >= N) {
    return;
  }
  // The minimum is n; by it compilers can tell that indices are in range, and check them no more.
  let start = min(n, N - 1u) * QUADS;
  var products = vec4<f32>();
  for (var i = 0u; i < QUADS; i++) {
    products += gain[i] * dout[start + i] * x[start + i];
  }
  let r = rstd[n];
  let pull = r * r * dot(products, vec4<f32>(1.0)) / f32(C);
  for (var i = 0u; i < QUADS; i++) {
    var value = r * (gain[i] * dout[start + i] - x[start + i] * pull);
    if (ADD) {
      value += add[start + i];
    }
    dx[start + i] = value;
  }
}
