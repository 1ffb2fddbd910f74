// matmul, subgroups: out[M,N] = opA(a)[M,K] · opB(b)[K,N] (+ add[M,N]) (+ bias[N]) for M, N and K that are multiples of 4.
// An invocation owns $L·$H blocks of four rows and $C quads of columns; all invocations of a workgroup own the same rows. So
// 4·$H lanes read one quad of `a` each and broadcast it: what a row costs is read once for a subgroup, and the columns are
// read once for 4·$L·$H rows. Only lanes 0 to 4·$H − 1 are read from, and nothing depends on how many there are or on which
// invocations share a subgroup: right for every subgroup size from 4·$H on (in the browser that is 4 with $H 1, and from 8
// on with $H 2).
//
// A line with $l, $h or $c is repeated for each load, block of a load, and quad of columns; one that ends in "// $s", "$t", "$u" or "$v" is
// there if a is straight, a is transposed, b is straight, b is transposed (`unroll` in gpu/shader.ts). Sums of a row are
// one statement for four values of k, because software adapters keep what crosses statements in memory.
//
// Bindings   0 a [M,K/4] vec4, or [K,M/4] when transposed   1 b [K,N/4] vec4, or [N,K/4] when transposed
//            2 add [M,N/4] vec4, unused if !ADD   3 out [M,N/4] vec4   4 bias [N/4] vec4, unused if !BIAS
// Constants  M N K; AM AK strides of a along m and k; BK BN strides of b along k and n; ADD BIAS; GRID_X workgroups in a grid row
// Dispatch   ceil(M/(4·$L·$H)) · ceil(N/(128·$C)) workgroups of 32, folded to rows of GRID_X
// Twin       matmul in tensor/twin-ops.ts; tolerance 1e-5 of the largest element
// Source     register blocking as in jax-js (src/tuner.ts); subgroupBroadcast as in WGSL 17.12, with constant lanes
enable subgroups;
@group(0) @binding(0) var<storage, read> a: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> b: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> add: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> out: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> bias: array<vec4<f32>>;

const ROWS = (M + 4u * $L * $H - 1u) / (4u * $L * $H);
const COLUMNS = (N + 128u * $C - 1u) / (128u * $C);

// Where a lane's quads of `a` begin, for the 4·$H rows from m on. Rows beyond the edge repeat the last ones.
fn start_a(m: u32, lane: u32) -> u32 {
  if (AK == 1u) {
    return min(m + lane % (4u * $H), M - 1u) * AM / 4u;
  }
  return ((lane % 4u) * AK + min(m + 4u * (lane / 4u % $H), M - 4u)) / 4u;
}
fn store(m: u32, n: u32, sums: vec4<f32>) {
  if (m < M && n < N) {
    put((m * N + n) / 4u, n / 4u, sums);
  }
}

@compute @workgroup_size(32)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
  @builtin(subgroup_invocation_id) lane: u32
) {
  // Workgroups beyond the edge repeat the last one, and columns the last quad: loads stay in range, and all lanes together.
  let wanted = group.x + group.y * GRID_X;
  let task = min(wanted, ROWS * COLUMNS - 1u);
  let m = (task / COLUMNS) * 4u * $L * $H;
  let n = ((task % COLUMNS) * 32u + thread) * 4u * $C;
  let a$l = start_a(m + 4u * $H * $l, lane);
  let b$c = min(n + 4u * $c, N - 4u) * BN / 4u;
  var sum$l_$h_0_$c = vec4<f32>();
  var sum$l_$h_1_$c = vec4<f32>();
  var sum$l_$h_2_$c = vec4<f32>();
  var sum$l_$h_3_$c = vec4<f32>();
  for (var k = 0u; k < K; k += 4u) {
    let own$l = a[a$l + k * AK / 4u];
    let u0_$c = b[b$c + k * BK / 4u];
    let u1_$c = b[b$c + (k + 1u) * BK / 4u]; // $u
    let u2_$c = b[b$c + (k + 2u) * BK / 4u]; // $u
    let u3_$c = b[b$c + (k + 3u) * BK / 4u]; // $u
    let u1_$c = b[b$c + (BN + k) / 4u]; // $v
    let u2_$c = b[b$c + (2u * BN + k) / 4u]; // $v
    let u3_$c = b[b$c + (3u * BN + k) / 4u]; // $v
    let v0_$c = vec4<f32>(u0_$c.x, u1_$c.x, u2_$c.x, u3_$c.x); // $v
    let v1_$c = vec4<f32>(u0_$c.y, u1_$c.y, u2_$c.y, u3_$c.y); // $v
    let v2_$c = vec4<f32>(u0_$c.z, u1_$c.z, u2_$c.z, u3_$c.z); // $v
    let v3_$c = vec4<f32>(u0_$c.w, u1_$c.w, u2_$c.w, u3_$c.w); // $v
    let v0_$c = u0_$c; // $u
    let v1_$c = u1_$c; // $u
    let v2_$c = u2_$c; // $u
    let v3_$c = u3_$c; // $u
    let s0_$l_$h = subgroupBroadcast(own$l, 4u * $h);
    let s1_$l_$h = subgroupBroadcast(own$l, 4u * $h + 1u);
    let s2_$l_$h = subgroupBroadcast(own$l, 4u * $h + 2u);
    let s3_$l_$h = subgroupBroadcast(own$l, 4u * $h + 3u);
    let r0_$l_$h = s0_$l_$h; // $s
    let r1_$l_$h = s1_$l_$h; // $s
    let r2_$l_$h = s2_$l_$h; // $s
    let r3_$l_$h = s3_$l_$h; // $s
    let r0_$l_$h = vec4<f32>(s0_$l_$h.x, s1_$l_$h.x, s2_$l_$h.x, s3_$l_$h.x); // $t
    let r1_$l_$h = vec4<f32>(s0_$l_$h.y, s1_$l_$h.y, s2_$l_$h.y, s3_$l_$h.y); // $t
    let r2_$l_$h = vec4<f32>(s0_$l_$h.z, s1_$l_$h.z, s2_$l_$h.z, s3_$l_$h.z); // $t
    let r3_$l_$h = vec4<f32>(s0_$l_$h.w, s1_$l_$h.w, s2_$l_$h.w, s3_$l_$h.w); // $t
    sum$l_$h_0_$c = sum$l_$h_0_$c + r0_$l_$h.x * v0_$c + r0_$l_$h.y * v1_$c + r0_$l_$h.z * v2_$c + r0_$l_$h.w * v3_$c;
    sum$l_$h_1_$c = sum$l_$h_1_$c + r1_$l_$h.x * v0_$c + r1_$l_$h.y * v1_$c + r1_$l_$h.z * v2_$c + r1_$l_$h.w * v3_$c;
    sum$l_$h_2_$c = sum$l_$h_2_$c + r2_$l_$h.x * v0_$c + r2_$l_$h.y * v1_$c + r2_$l_$h.z * v2_$c + r2_$l_$h.w * v3_$c;
    sum$l_$h_3_$c = sum$l_$h_3_$c + r3_$l_$h.x * v0_$c + r3_$l_$h.y * v1_$c + r3_$l_$h.z * v2_$c + r3_$l_$h.w * v3_$c;
  }
  if (wanted < ROWS * COLUMNS) {
    store(m + 4u * ($H * $l + $h), n + 4u * $c, sum$l_$h_0_$c);
    store(m + 4u * ($H * $l + $h) + 1u, n + 4u * $c, sum$l_$h_1_$c);
    store(m + 4u * ($H * $l + $h) + 2u, n + 4u * $c, sum$l_$h_2_$c);
    store(m + 4u * ($H * $l + $h) + 3u, n + 4u * $c, sum$l_$h_3_$c);
  }
}
