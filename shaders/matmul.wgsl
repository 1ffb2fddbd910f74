// matmul, shared tiles: out[M,N] = opA(a)[M,K] · opB(b)[K,N] (+ add[M,N]) (+ bias[N]). A workgroup owns a TILE × TILE
// square of out, stages 16 values of k of both operands in workgroup memory, and each invocation keeps 4 × 4 sums in
// registers, so that two 16-byte reads of workgroup memory feed 16 multiply-adds. The rung for real GPUs.
//
// Bindings   0 a [M,K], or [K,M] when transposed   1 b [K,N], or [N,K] when transposed
//            2 add [M,N], unused if !ADD   3 out [M,N]   4 bias [N], unused if !BIAS
// Constants  M N K; AM AK strides of a along m and k; BK BN strides of b along k and n; ADD BIAS; TILE 64 or 32; GRID_X
// Dispatch   ceil(M/TILE) · ceil(N/TILE) workgroups of (TILE/4)², folded to rows of GRID_X; 128·TILE bytes of workgroup memory
// Twin       matmul in tensor/twin-ops.ts; tolerance 1e-5 of the largest element
// Source     S. Boehm, "How to optimize a CUDA matmul kernel" (2022), kernels 5 and 6; no double buffering, which cost
//            others 13 % in WGSL
@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read> add: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
@group(0) @binding(4) var<storage, read> bias: array<f32>;

const STEP = 16u;
const QUADS = TILE / 4u;
const THREADS = QUADS * QUADS;
const COLUMNS = (N + TILE - 1u) / TILE;
const GROUPS = COLUMNS * ((M + TILE - 1u) / TILE);
// No tile sticks out over an edge: loads need no guard.
const WHOLE = M % TILE == 0u && N % TILE == 0u && K % STEP == 0u;

// [STEP][QUADS]: four neighbouring rows of opA(a), or columns of opB(b), at one k.
var<workgroup> tile_a: array<vec4<f32>, STEP * QUADS>;
var<workgroup> tile_b: array<vec4<f32>, STEP * QUADS>;

fn at_a(m: u32, k: u32) -> f32 {
  if (WHOLE || (m < M && k < K)) {
    return a[m * AM + k * AK];
  }
  return 0.0;
}
fn at_b(k: u32, n: u32) -> f32 {
  if (WHOLE || (n < N && k < K)) {
    return b[k * BK + n * BN];
  }
  return 0.0;
}
// Neighbouring invocations read neighbouring addresses: along k where k is contiguous, else along m or n.
fn k_of(i: u32, along_k: bool) -> u32 {
  return select(i / QUADS, i % STEP, along_k);
}
fn quad_of(i: u32, along_k: bool) -> u32 {
  return select(i % QUADS, i / STEP, along_k);
}
// What a fused op does with value i of out once it is written; nothing here (gpu/merge.ts).
fn stored(i: u32) {
}
// Ends the sum of value i of out, which stands in column n.
fn put(i: u32, n: u32, sum: f32) {
  var value = sum;
  if (ADD) {
    value += add[i];
  }
  if (BIAS) {
    value += bias[n];
  }
  out[i] = value;
  stored(i);
}
fn store(m: u32, n: u32, sum: f32) {
  if (WHOLE || (m < M && n < N)) {
    put(m * N + n, n, sum);
  }
}
fn store_row(m: u32, n: u32, sums: vec4<f32>) {
  store(m, n, sums.x);
  store(m, n + 1u, sums.y);
  store(m, n + 2u, sums.z);
  store(m, n + 3u, sums.w);
}

@compute @workgroup_size(QUADS, QUADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  // Surplus workgroups of a folded grid compute the last tile again and do not store it.
  let wanted = group.x + group.y * GRID_X;
  let tile = min(wanted, GROUPS - 1u);
  let m0 = (tile / COLUMNS) * TILE;
  let n0 = (tile % COLUMNS) * TILE;
  let x = thread % QUADS;
  let y = thread / QUADS;
  var c0 = vec4<f32>();
  var c1 = vec4<f32>();
  var c2 = vec4<f32>();
  var c3 = vec4<f32>();
  for (var k0 = 0u; k0 < K; k0 += STEP) {
    workgroupBarrier();
    for (var i = thread; i < STEP * QUADS; i += THREADS) {
      let ka = k_of(i, AK == 1u);
      let qa = quad_of(i, AK == 1u);
      let m = m0 + qa * 4u;
      tile_a[ka * QUADS + qa] =
        vec4<f32>(at_a(m, k0 + ka), at_a(m + 1u, k0 + ka), at_a(m + 2u, k0 + ka), at_a(m + 3u, k0 + ka));
      let kb = k_of(i, BK == 1u);
      let qb = quad_of(i, BK == 1u);
      let n = n0 + qb * 4u;
      tile_b[kb * QUADS + qb] =
        vec4<f32>(at_b(k0 + kb, n), at_b(k0 + kb, n + 1u), at_b(k0 + kb, n + 2u), at_b(k0 + kb, n + 3u));
    }
    workgroupBarrier();
    for (var k = 0u; k < STEP; k++) {
      let p = tile_a[k * QUADS + y];
      let q = tile_b[k * QUADS + x];
      c0 += p.x * q;
      c1 += p.y * q;
      c2 += p.z * q;
      c3 += p.w * q;
    }
  }
  if (wanted < GROUPS) {
    let m = m0 + y * 4u;
    let n = n0 + x * 4u;
    store_row(m, n, c0);
    store_row(m + 1u, n, c1);
    store_row(m + 2u, n, c2);
    store_row(m + 3u, n, c3);
  }
}
