// crossEntropy, rows: losses[n] = logsumexp_v logits[n,v] − logits[n, targets[n]]. An invocation owns a row and reads it once,
// with a running maximum: no workgroup memory, no barriers. For software adapters.
//
// Bindings   0 logits [N,V/4] vec4   1 targets [N] u32, each below V (the host checks)   2 losses [N]
// Constants  N; V (multiple of 4); SIZE invocations a workgroup; GRID_X
// Dispatch   ceil(N/SIZE) workgroups of SIZE, folded to rows of GRID_X
// Twin       crossEntropy in tensor/twin-ops.ts; tolerance 1e-5 of the largest element
// Source     online softmax: Milakov and Gimelshein, arXiv 1805.02867
@group(0) @binding(0) var<storage, read> logits: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> targets: array<u32>;
@group(0) @binding(2) var<storage, read_write> losses: array<f32>;

const QUADS = V / 4u;

@compute @workgroup_size(SIZE)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let n = (group.x + group.y * GRID_X) * SIZE + thread;
  if (n >= N) {
    return;
  }
  // The minimum is n; by it compilers can tell that indices are in range, and check them no more.
  let start = min(n, N - 1u) * QUADS;
  let wanted = targets[n];
  var top = -3e38;
  var total = 0.0;
  var own = 0.0;
  for (var i = 0u; i < QUADS; i++) {
    let quad = logits[start + i];
    let higher = max(max(top, max(quad.x, quad.y)), max(quad.z, quad.w));
    total = total * exp(top - higher) + dot(exp(quad - higher), vec4<f32>(1.0));
    top = higher;
    let columns = 4u * i + vec4<u32>(0u, 1u, 2u, 3u);
    own += dot(select(vec4<f32>(), quad, columns == vec4<u32>(wanted)), vec4<f32>(1.0));
  }
  losses[n] = top + log(total) - own;
}
