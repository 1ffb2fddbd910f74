// rmsNorm, rows: rstd[n] = 1/√(mean_c x² + eps); out[n,c] = x[n,c] · rstd[n] · gain[c]. An invocation owns a row: no workgroup
// memory, no barriers. For software adapters, where a workgroup that meets at a barrier costs more than its row.
//
// Bindings   0 x [N,C/4] vec4   1 gain [C/4] vec4   2 out [N,C/4] vec4   3 rstd [N]
// Constants  N; C (multiple of 4); EPS; SIZE invocations a workgroup; GRID_X
// Dispatch   ceil(N/SIZE) workgroups of SIZE, folded to rows of GRID_X
// Twin       rmsNorm in tensor/twin-ops.ts; tolerance 1e-5 of the largest element
// Source     Zhang and Sennrich, arXiv 1910.07467
@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> gain: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> rstd: array<f32>;

const QUADS = C / 4u;

@compute @workgroup_size(SIZE)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let n = (group.x + group.y * GRID_X) * SIZE + thread;
  if (n >= N) {
    return;
  }
  // The minimum is n; by it compilers can tell that indices are in range, and check them no more.
  let start = min(n, N - 1u) * QUADS;
  var squares = vec4<f32>();
  for (var i = 0u; i < QUADS; i++) {
    let quad = x[start + i];
    squares += quad * quad;
  }
  let r = 1.0 / sqrt(dot(squares, vec4<f32>(1.0)) / f32(C) + EPS);
  for (var i = 0u; i < QUADS; i++) {
    out[start + i] = x[start + i] * r * gain[i];
  }
  rstd[n] = r;
}
