// matmul, register blocks: out[M,N] = opA(a)[M,K] · opB(b)[K,N] (+ add[M,N]) (+ bias[N]) for M, N and K that are multiples
// of 4. One invocation owns $R × $C blocks of 4 × 4 and reads its operands as quads straight from memory, four values of k
// at a time, whichever way they are transposed. No workgroup memory, no barriers. A line with $r or $c is repeated for each
// block row or column (`unroll` in gpu/shader.ts): software adapters keep sums in registers only if they have names of
// their own.
//
// Bindings   0 a [M,K/4] vec4, or [K,M/4] when transposed   1 b [K,N/4] vec4, or [N,K/4] when transposed
//            2 add [M,N/4] vec4, unused if !ADD   3 out [M,N/4] vec4   4 bias [N/4] vec4, unused if !BIAS
// Constants  M N K; AM AK strides of a along m and k; BK BN strides of b along k and n; ADD BIAS; GRID_X workgroups in a grid row
// Dispatch   ceil(ceil(M/(4·$R)) · ceil(N/(4·$C)) / 64) workgroups of 64, folded to rows of GRID_X
// Twin       matmul in tensor/twin-ops.ts; tolerance 1e-5 of the largest element
// Source     register blocking as in jax-js (src/tuner.ts)
@group(0) @binding(0) var<storage, read> a: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> b: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> add: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> out: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> bias: array<vec4<f32>>;

const ROWS = (M + 4u * $R - 1u) / (4u * $R);
const COLUMNS = (N + 4u * $C - 1u) / (4u * $C);

// Column i: opA(a)[m + i, k … k + 3].
fn block_a(m: u32, k: u32) -> mat4x4<f32> {
  let i = (m * AM + k * AK) / 4u;
  if (AK == 1u) {
    return mat4x4<f32>(a[i], a[i + AM / 4u], a[i + AM / 2u], a[i + 3u * AM / 4u]);
  }
  return transpose(mat4x4<f32>(a[i], a[i + AK / 4u], a[i + AK / 2u], a[i + 3u * AK / 4u]));
}
// Column i: opB(b)[k + i, n … n + 3].
fn block_b(k: u32, n: u32) -> mat4x4<f32> {
  let i = (k * BK + n * BN) / 4u;
  if (BN == 1u) {
    return mat4x4<f32>(b[i], b[i + BK / 4u], b[i + BK / 2u], b[i + 3u * BK / 4u]);
  }
  return transpose(mat4x4<f32>(b[i], b[i + BN / 4u], b[i + BN / 2u], b[i + 3u * BN / 4u]));
}
// Column i of `sums` is row m + i of out.
fn store(m: u32, n: u32, sums: mat4x4<f32>) {
  if (m < M && n < N) {
    let i = (m * N + n) / 4u;
    put(i, n / 4u, sums[0]);
    put(i + N / 4u, n / 4u, sums[1]);
    put(i + N / 2u, n / 4u, sums[2]);
    put(i + 3u * N / 4u, n / 4u, sums[3]);
  }
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let i = (group.x + group.y * GRID_X) * 64u + thread;
  if (i >= ROWS * COLUMNS) {
    return;
  }
  let m = (i / COLUMNS) * 4u * $R;
  let n = (i % COLUMNS) * 4u * $C;
  // Blocks beyond the edge repeat the last one (their loads stay in range) and are not stored.
  let m$r = min(m + 4u * $r, M - 4u);
  let n$c = min(n + 4u * $c, N - 4u);
  var sums$r_$c = mat4x4<f32>();
  for (var k = 0u; k < K; k += 4u) {
    let a$r = block_a(m$r, k);
    let b$c = block_b(k, n$c);
    sums$r_$c += b$c * a$r;
  }
  store(m + 4u * $r, n + 4u * $c, sums$r_$c);
}
