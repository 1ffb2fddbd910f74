// matmul, lanes: out[M,N] = opA(a)[M,K] · opB(b)[K,N] (+ add[M,N]) (+ bias[N]) for M, N and K that are multiples of 4. An
// invocation owns 4·$Q rows × $C columns, its neighbour the columns beside them; all invocations of a workgroup own the same
// rows. So what neighbouring lanes read of `b` lies side by side, and four lanes read four neighbours of `a` and broadcast them:
// a software adapter, whose subgroup is one SIMD register, reads four numbers at once where other layouts make it collect them
// one by one. Only lanes 0 to 3 are read from, and nothing depends on how many there are: right for every subgroup size from 4 on.
//
// A line with $q, $i, $j or $c is repeated for each quad of rows, row of it, k of four, and column; one that ends in "// $s",
// "// $t", "// $u" or "// $v" is there if a is straight, a is transposed, b is straight, b is transposed (`unroll` in
// gpu/shader.ts). Sums are one statement for four values of k, because software adapters keep what crosses statements in memory.
// Loops count by one and rows end at M, so that compilers can tell that indices are in range, and check them no more.
//
// Bindings   0 a [M,K], or [K,M] when transposed   1 b [K,N], or [N,K/4] vec4 when transposed
//            2 add [M,N], unused if !ADD   3 out [M,N]   4 bias [N], unused if !BIAS
// Constants  M N K; ADD BIAS; SIZE invocations a workgroup; GRID_X workgroups in a grid row
// Dispatch   ceil(M/(4·$Q)) · ceil(N/(SIZE·$C)) workgroups of SIZE, folded to rows of GRID_X
// Twin       matmul in tensor/twin-ops.ts; tolerance 1e-5 of the largest element
// Source     SwiftShader's loads (src/Reactor/SIMD.cpp: one instruction where the lanes' addresses follow each other);
//            subgroupBroadcast as in WGSL 17.12, with constant lanes
enable subgroups;
@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<f32>; // $u
@group(0) @binding(1) var<storage, read> b: array<vec4<f32>>; // $v
@group(0) @binding(2) var<storage, read> add: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
@group(0) @binding(4) var<storage, read> bias: array<f32>;

const ROWS = (M + 4u * $Q - 1u) / (4u * $Q);
const COLUMNS = (N + SIZE * $C - 1u) / (SIZE * $C);

fn store(m: u32, n: u32, sum: f32) {
  if (m < M && n < N) {
    put(m * N + n, n, sum);
  }
}

@compute @workgroup_size(SIZE)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
  @builtin(subgroup_invocation_id) lane: u32
) {
  // Workgroups, rows and columns beyond the edge repeat the last one: loads stay in range, and all lanes together.
  let wanted = group.x + group.y * GRID_X;
  let task = min(wanted, ROWS * COLUMNS - 1u);
  let m = (task / COLUMNS) * 4u * $Q;
  let n = (task % COLUMNS) * SIZE * $C + thread;
  let n$c = min(n + SIZE * $cu, N - 1u);
  let a$q_$i = min(m + 4u * $qu + $iu, M - 1u) * K + lane % 4u; // $s
  let a$q = min(m + 4u * $qu + lane % 4u, M - 1u); // $t
  var sum$q_$i_$c = 0.0;
  for (var step = 0u; step < K / 4u; step++) {
    let k = 4u * step;
    let own$q_$i = a[a$q_$i + k]; // $s
    let own$q_$j = a[(k + $ju) * M + a$q]; // $t
    let x$q_$i_$j = subgroupBroadcast(own$q_$i, $ju); // $s
    let x$q_$i_$j = subgroupBroadcast(own$q_$j, $iu); // $t
    let y$j_$c = b[(k + $ju) * N + n$c]; // $u
    let quad$c = b[n$c * (K / 4u) + step]; // $v
    let y0_$c = quad$c.x; // $v
    let y1_$c = quad$c.y; // $v
    let y2_$c = quad$c.z; // $v
    let y3_$c = quad$c.w; // $v
    sum$q_$i_$c = sum$q_$i_$c + x$q_$i_0 * y0_$c + x$q_$i_1 * y1_$c + x$q_$i_2 * y2_$c + x$q_$i_3 * y3_$c;
  }
  if (wanted < ROWS * COLUMNS) {
    store(m + 4u * $qu + $iu, n + SIZE * $cu, sum$q_$i_$c);
  }
}
