// matmul, naive: out[M,N] = opA(a)[M,K] · opB(b)[K,N] (+ add[M,N]) (+ bias[N]); one invocation owns one element.
// The first rung of the ladder: it stays because it is short enough to be believed, and is tested beside the fast ones.
//
// Bindings   0 a [M,K], or [K,M] when transposed   1 b [K,N], or [N,K] when transposed
//            2 add [M,N], unused if !ADD   3 out [M,N]   4 bias [N], unused if !BIAS
// Constants  M N K; AM AK strides of a along m and k; BK BN strides of b along k and n; ADD BIAS; GRID_X workgroups in a grid row
// Dispatch   ceil(M·N / 64) workgroups of 64, folded to rows of GRID_X
// Twin       matmul in tensor/twin-ops.ts; tolerance 1e-5 of the largest element
// Source     the definition
@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read> add: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
@group(0) @binding(4) var<storage, read> bias: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let i = (group.x + group.y * GRID_X) * 64u + thread;
  if (i >= M * N) {
    return;
  }
  let m = i / N;
  let n = i % N;
  var sum = 0.0;
  for (var k = 0u; k < K; k++) {
    sum += a[m * AM + k * AK] * b[k * BK + n * BN];
  }
  put(i, n, sum);
}
