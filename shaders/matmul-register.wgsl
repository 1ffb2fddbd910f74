// matmul, register tiles: out[M,N] = opA(a)[M,K] · opB(b)[K,N] (+ add[M,N]) (+ bias[N]); one invocation owns 8 rows × 4
// columns and reads its operands straight from memory. No workgroup memory, no barriers: the rung for software adapters,
// whose barriers are dear and whose "workgroup memory" is ordinary memory, and for GPUs with strong caches.
//
// Bindings   0 a [M,K], or [K,M] when transposed   1 b [K,N], or [N,K] when transposed
//            2 add [M,N], unused if !ADD   3 out [M,N]   4 bias [N], unused if !BIAS
// Constants  M N K; AM AK strides of a along m and k; BK BN strides of b along k and n; ADD BIAS; GRID_X workgroups in a grid row
// Dispatch   ceil(ceil(M/8) · ceil(N/4) / 64) workgroups of 64, folded to rows of GRID_X
// Twin       matmul in tensor/twin-ops.ts; tolerance 1e-5 of the largest element
// Source     register blocking as in jax-js (src/tuner.ts) and in benchmarks of software adapters in docs
@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read> add: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
@group(0) @binding(4) var<storage, read> bias: array<f32>;

const ROWS = (M + 7u) / 8u;
const COLUMNS = (N + 3u) / 4u;

// Rows and columns beyond the edge repeat the last one (their loads stay in range) and are not stored.
fn row_start(m: u32) -> u32 {
  return min(m, M - 1u) * AM;
}
fn column_start(n: u32) -> u32 {
  return min(n, N - 1u) * BN;
}
fn store(m: u32, n: u32, sum: f32) {
  if (m < M && n < N) {
    put(m * N + n, n, sum);
  }
}
fn store_row(m: u32, n: u32, sums: vec4<f32>) {
  store(m, n, sums.x);
  store(m, n + 1u, sums.y);
  store(m, n + 2u, sums.z);
  store(m, n + 3u, sums.w);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let i = (group.x + group.y * GRID_X) * 64u + thread;
  if (i >= ROWS * COLUMNS) {
    return;
  }
  let m = (i / COLUMNS) * 8u;
  let n = (i % COLUMNS) * 4u;
  let a0 = row_start(m);
  let a1 = row_start(m + 1u);
  let a2 = row_start(m + 2u);
  let a3 = row_start(m + 3u);
  let a4 = row_start(m + 4u);
  let a5 = row_start(m + 5u);
  let a6 = row_start(m + 6u);
  let a7 = row_start(m + 7u);
  let b0 = column_start(n);
  let b1 = column_start(n + 1u);
  let b2 = column_start(n + 2u);
  let b3 = column_start(n + 3u);
  var c0 = vec4<f32>();
  var c1 = vec4<f32>();
  var c2 = vec4<f32>();
  var c3 = vec4<f32>();
  var c4 = vec4<f32>();
  var c5 = vec4<f32>();
  var c6 = vec4<f32>();
  var c7 = vec4<f32>();
  for (var k = 0u; k < K; k++) {
    let ka = k * AK;
    let kb = k * BK;
    let y = vec4<f32>(b[b0 + kb], b[b1 + kb], b[b2 + kb], b[b3 + kb]);
    c0 += a[a0 + ka] * y;
    c1 += a[a1 + ka] * y;
    c2 += a[a2 + ka] * y;
    c3 += a[a3 + ka] * y;
    c4 += a[a4 + ka] * y;
    c5 += a[a5 + ka] * y;
    c6 += a[a6 + ka] * y;
    c7 += a[a7 + ka] * y;
  }
  store_row(m, n, c0);
  store_row(m + 1u, n, c1);
  store_row(m + 2u, n, c2);
  store_row(m + 3u, n, c3);
  store_row(m + 4u, n, c4);
  store_row(m + 5u, n, c5);
  store_row(m + 6u, n, c6);
  store_row(m + 7u, n, c7);
}
