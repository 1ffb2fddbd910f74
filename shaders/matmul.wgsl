// matmul, shared tiles: out[M,N] = opA(a)[M,K] · opB(b)[K,N] (+ add[M,N]) (+ bias[N]). A workgroup owns TILE_M × TILE_N of
// out, stages STEP values of k of both operands in workgroup memory, and each invocation keeps $R × $C blocks of 4 × 4 sums in registers,
// so that $R + $C 16-byte reads of workgroup memory feed 16·$R·$C multiply-adds. The rungs for real GPUs. With PARTS > 1 the
// sum over k is cut into parts of LENGTH, each with workgroups of its own; out is then [PARTS,M,N] and `matmul-sum` adds it up.
//
// A line with $r or $c is repeated for each block row or column (`unroll` in gpu/shader.ts). A Value is vec4<f32> if M, N and K
// are multiples of 4, else f32 (`inValues` there); a line that ends in "// $q" is for the quads, one that ends in "// $e" not.
// The blocks of an invocation lie Y quads or X quads apart, not beside each other, so that neighbouring invocations read
// neighbouring quads. A row of a tile is one quad longer than it has to be: what is contiguous along k in memory is stored
// across the rows, which then begin in different banks. Quads that lie along k are turned in registers, four at a time,
// because a store to one component of a vector may touch the others (WGSL 14.5.1).
//
// Bindings   0 a [M,K], or [K,M] when transposed   1 b [K,N], or [N,K] when transposed
//            2 add [M,N], unused if !ADD   3 out [M,N]   4 bias [N], unused if !BIAS
// Constants  M N K; AM AK strides of a along m and k; BK BN strides of b along k and n; ADD BIAS; TILE_M TILE_N multiples of
//            4·$R and 4·$C; STEP a multiple of 4; PARTS; LENGTH a multiple of STEP; GRID_X
// Dispatch   ceil(M/TILE_M) · ceil(N/TILE_N) · PARTS workgroups of TILE_M·TILE_N/(16·$R·$C), folded to rows of GRID_X;
//            (TILE_M + TILE_N + 8)·4·STEP bytes of workgroup memory
// Twin       matmul in tensor/twin-ops.ts; tolerance 1e-5 of the largest element
// Source     S. Boehm, "How to optimize a CUDA matmul kernel" (2022), kernels 5 and 6; sizes of torchlette (src/backend/webgpu/
//            matmul), which lost 13 % to double buffering and 9 to 36 % to reading its tiles by quads along k; blocks apart as in
//            S. Gray's maxas SGEMM; the longer rows as in the transposing tiles of ONNX Runtime
@group(0) @binding(0) var<storage, read> a: array<Value>;
@group(0) @binding(1) var<storage, read> b: array<Value>;
@group(0) @binding(2) var<storage, read> add: array<Value>;
@group(0) @binding(3) var<storage, read_write> out: array<Value>;
@group(0) @binding(4) var<storage, read> bias: array<Value>;

const QUADS_M = TILE_M / 4u;
const QUADS_N = TILE_N / 4u;
const X = QUADS_N / $C;
const Y = QUADS_M / $R;
const THREADS = X * Y;
const PITCH_M = QUADS_M + 1u;
const PITCH_N = QUADS_N + 1u;
const COLUMNS = (N + TILE_N - 1u) / TILE_N;
const TILES = COLUMNS * ((M + TILE_M - 1u) / TILE_M);
// No tile sticks out over an edge: loads need no guard.
const WHOLE = M % TILE_M == 0u && N % TILE_N == 0u && K % STEP == 0u;

// Four neighbouring rows of opA(a), or columns of opB(b), at one k.
var<workgroup> tile_a: array<vec4<f32>, STEP * PITCH_M>;
var<workgroup> tile_b: array<vec4<f32>, STEP * PITCH_N>;

// What lies in memory at (m, k): an element, or the quad that begins there.
fn at_a(m: u32, k: u32) -> Value {
  if (WHOLE || (m < M && k < K)) {
    return a[m * AM + k * AK]; // $e
    return a[(m * AM + k * AK) / 4u]; // $q
  }
  return Value();
}
fn at_b(k: u32, n: u32) -> Value {
  if (WHOLE || (n < N && k < K)) {
    return b[k * BK + n * BN]; // $e
    return b[(k * BK + n * BN) / 4u]; // $q
  }
  return Value();
}
// Neighbouring invocations read neighbouring addresses: along k where k is contiguous, else along m or n.
fn stage_a(i: u32, m0: u32, k0: u32) {
  if (AK == 1u) {
    let k = i % STEP; // $e
    let quad = i / STEP; // $e
    let k = i % (STEP / 4u) * 4u; // $q
    let quad = i / (STEP / 4u); // $q
    let m = m0 + quad * 4u;
    let rows = vec4<f32>(at_a(m, k0 + k), at_a(m + 1u, k0 + k), at_a(m + 2u, k0 + k), at_a(m + 3u, k0 + k)); // $e
    let rows = transpose(mat4x4<f32>(at_a(m, k0 + k), at_a(m + 1u, k0 + k), at_a(m + 2u, k0 + k), at_a(m + 3u, k0 + k))); // $q
    tile_a[k * PITCH_M + quad] = rows; // $e
    tile_a[k * PITCH_M + quad] = rows[0]; // $q
    tile_a[(k + 1u) * PITCH_M + quad] = rows[1]; // $q
    tile_a[(k + 2u) * PITCH_M + quad] = rows[2]; // $q
    tile_a[(k + 3u) * PITCH_M + quad] = rows[3]; // $q
  } else {
    let k = i / QUADS_M;
    let quad = i % QUADS_M;
    let m = m0 + quad * 4u;
    let rows = vec4<f32>(at_a(m, k0 + k), at_a(m + 1u, k0 + k), at_a(m + 2u, k0 + k), at_a(m + 3u, k0 + k)); // $e
    let rows = at_a(m, k0 + k); // $q
    tile_a[k * PITCH_M + quad] = rows;
  }
}
fn stage_b(i: u32, n0: u32, k0: u32) {
  if (BK == 1u) {
    let k = i % STEP; // $e
    let quad = i / STEP; // $e
    let k = i % (STEP / 4u) * 4u; // $q
    let quad = i / (STEP / 4u); // $q
    let n = n0 + quad * 4u;
    let columns = vec4<f32>(at_b(k0 + k, n), at_b(k0 + k, n + 1u), at_b(k0 + k, n + 2u), at_b(k0 + k, n + 3u)); // $e
    let columns = transpose(mat4x4<f32>(at_b(k0 + k, n), at_b(k0 + k, n + 1u), at_b(k0 + k, n + 2u), at_b(k0 + k, n + 3u))); // $q
    tile_b[k * PITCH_N + quad] = columns; // $e
    tile_b[k * PITCH_N + quad] = columns[0]; // $q
    tile_b[(k + 1u) * PITCH_N + quad] = columns[1]; // $q
    tile_b[(k + 2u) * PITCH_N + quad] = columns[2]; // $q
    tile_b[(k + 3u) * PITCH_N + quad] = columns[3]; // $q
  } else {
    let k = i / QUADS_N;
    let quad = i % QUADS_N;
    let n = n0 + quad * 4u;
    let columns = vec4<f32>(at_b(k0 + k, n), at_b(k0 + k, n + 1u), at_b(k0 + k, n + 2u), at_b(k0 + k, n + 3u)); // $e
    let columns = at_b(k0 + k, n); // $q
    tile_b[k * PITCH_N + quad] = columns;
  }
}
// How many calls stage a whole tile: fewer where each of them turns four quads.
const CALLS_A = STEP * QUADS_M; // $e
const CALLS_B = STEP * QUADS_N; // $e
const CALLS_A = select(STEP, STEP / 4u, AK == 1u) * QUADS_M; // $q
const CALLS_B = select(STEP, STEP / 4u, BK == 1u) * QUADS_N; // $q

fn store(part: u32, m: u32, n: u32, sum: Value) {
  if (WHOLE || (m < M && n < N)) {
    put((part * M + m) * N + n, n, sum); // $e
    put(((part * M + m) * N + n) / 4u, n / 4u, sum); // $q
  }
}
fn store_row(part: u32, m: u32, n: u32, sums: vec4<f32>) {
  store(part, m, n, sums); // $q
  store(part, m, n, sums.x); // $e
  store(part, m, n + 1u, sums.y); // $e
  store(part, m, n + 2u, sums.z); // $e
  store(part, m, n + 3u, sums.w); // $e
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  // Surplus workgroups of a folded grid compute the last tile again and do not store it.
  let wanted = group.x + group.y * GRID_X;
  let task = min(wanted, TILES * PARTS - 1u);
  let part = task / TILES;
  let m0 = (task % TILES / COLUMNS) * TILE_M;
  let n0 = (task % TILES % COLUMNS) * TILE_N;
  let x = thread % X;
  let y = thread / X;
  var sum$r_0_$c = vec4<f32>();
  var sum$r_1_$c = vec4<f32>();
  var sum$r_2_$c = vec4<f32>();
  var sum$r_3_$c = vec4<f32>();
  let end = min(K, (part + 1u) * LENGTH);
  for (var k0 = part * LENGTH; k0 < end; k0 += STEP) {
    workgroupBarrier();
    for (var i = thread; i < CALLS_A; i += THREADS) {
      stage_a(i, m0, k0);
    }
    // Where one call each is more than enough for both, half of the invocations begin with b.
    for (var i = (thread + THREADS / 2u) % THREADS; i < CALLS_B; i += THREADS) {
      stage_b(i, n0, k0);
    }
    workgroupBarrier();
    for (var k = 0u; k < STEP; k++) {
      let p$r = tile_a[k * PITCH_M + y + $r * Y];
      let q$c = tile_b[k * PITCH_N + x + $c * X];
      sum$r_0_$c += p$r.x * q$c;
      sum$r_1_$c += p$r.y * q$c;
      sum$r_2_$c += p$r.z * q$c;
      sum$r_3_$c += p$r.w * q$c;
    }
  }
  if (wanted < TILES * PARTS) {
    store_row(part, m0 + 4u * (y + $r * Y), n0 + 4u * (x + $c * X), sum$r_0_$c);
    store_row(part, m0 + 4u * (y + $r * Y) + 1u, n0 + 4u * (x + $c * X), sum$r_1_$c);
    store_row(part, m0 + 4u * (y + $r * Y) + 2u, n0 + 4u * (x + $c * X), sum$r_2_$c);
    store_row(part, m0 + 4u * (y + $r * Y) + 3u, n0 + 4u * (x + $c * X), sum$r_3_$c);
  }
}
