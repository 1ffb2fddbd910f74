// matmul, subgroups: out[M,N] = opA(a)[M,K] · opB(b)[K,N] (+ add[M,N]) for M, N and K that are multiples of 4. All invocations
// of a workgroup own the same 4·$R rows and 4·$C columns each; so a quad of `a` is read by one lane and broadcast, which cuts
// the reads of `a` to a quarter. Only lanes 0 to 3 are read from, and nothing depends on how many there are or on which
// invocations share a subgroup: right for every subgroup size from 4 on. Lines with $r or $c are repeated (`unroll` in
// gpu/shader.ts).
//
// Bindings   0 a [M,K/4] vec4, or [K,M/4] when transposed   1 b [K,N/4] vec4, or [N,K/4] when transposed
//            2 add [M,N/4] vec4, unused if !ADD   3 out [M,N/4] vec4
// Constants  M N K; AM AK strides of a along m and k; BK BN strides of b along k and n; ADD; GRID_X workgroups in a grid row
// Dispatch   ceil(M/(4·$R)) · ceil(N/(128·$C)) workgroups of 32, folded to rows of GRID_X
// Twin       matmul in tensor/twin-ops.ts; tolerance 1e-5 of the largest element
// Source     register blocking as in jax-js (src/tuner.ts); subgroupBroadcast as in WGSL 17.12, with constant lanes
enable subgroups;
@group(0) @binding(0) var<storage, read> a: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> b: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> add: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> out: array<vec4<f32>>;

const ROWS = (M + 4u * $R - 1u) / (4u * $R);
const COLUMNS = (N + 128u * $C - 1u) / (128u * $C);

// Column i: opA(a)[m + i, k … k + 3]. Every lane reads one of the four quads; lanes 0 to 3 hold all of them.
fn block_a(m: u32, k: u32, lane: u32) -> mat4x4<f32> {
  let along_k = AK == 1u;
  let own = a[(m * AM + k * AK + (lane % 4u) * select(AK, AM, along_k)) / 4u];
  let quads = mat4x4<f32>(
    subgroupBroadcast(own, 0u), subgroupBroadcast(own, 1u), subgroupBroadcast(own, 2u), subgroupBroadcast(own, 3u));
  if (along_k) {
    return quads;
  }
  return transpose(quads);
}
// Column i: opB(b)[k + i, n … n + 3].
fn block_b(k: u32, n: u32) -> mat4x4<f32> {
  let i = (k * BK + n * BN) / 4u;
  if (BN == 1u) {
    return mat4x4<f32>(b[i], b[i + BK / 4u], b[i + BK / 2u], b[i + 3u * BK / 4u]);
  }
  return transpose(mat4x4<f32>(b[i], b[i + BN / 4u], b[i + BN / 2u], b[i + 3u * BN / 4u]));
}
fn store_row(i: u32, sums: vec4<f32>) {
  if (ADD) {
    out[i] = sums + add[i];
  } else {
    out[i] = sums;
  }
}
// Column i of `sums` is row m + i of out.
fn store(m: u32, n: u32, sums: mat4x4<f32>) {
  if (m < M && n < N) {
    let i = (m * N + n) / 4u;
    store_row(i, sums[0]);
    store_row(i + N / 4u, sums[1]);
    store_row(i + N / 2u, sums[2]);
    store_row(i + 3u * N / 4u, sums[3]);
  }
}

@compute @workgroup_size(32)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
  @builtin(subgroup_invocation_id) lane: u32
) {
  // Workgroups and blocks beyond the edge repeat the last one (their loads stay in range, and all lanes stay together).
  let wanted = group.x + group.y * GRID_X;
  let task = min(wanted, ROWS * COLUMNS - 1u);
  let m = (task / COLUMNS) * 4u * $R;
  let n = ((task % COLUMNS) * 32u + thread) * 4u * $C;
  let m$r = min(m + 4u * $r, M - 4u);
  let n$c = min(n + 4u * $c, N - 4u);
  var sums$r_$c = mat4x4<f32>();
  for (var k = 0u; k < K; k += 4u) {
    let a$r = block_a(m$r, k, lane);
    let b$c = block_b(k, n$c);
    sums$r_$c += b$c * a$r;
  }
  if (wanted < ROWS * COLUMNS) {
    store(m + 4u * $r, n + 4u * $c, sums$r_$c);
  }
}
