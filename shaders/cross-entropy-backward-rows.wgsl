// crossEntropyBackward, rows: dlogits[n,v] = (softmax(logits[n])[v] − [v = targets[n]]) / COUNT. An invocation owns a row, reads
// it once for its maximum and sum of exponentials and once more to write the gradient, which may go where the logits are. No
// workgroup memory, no barriers: for software adapters.
//
// Bindings   0 logits [N,V/4] vec4   1 targets [N] u32, each below V (the host checks)   2 dlogits [N,V/4] vec4
// Constants  N; V (multiple of 4); COUNT losses in the mean; SIZE invocations a workgroup; GRID_X
// Dispatch   ceil(N/SIZE) workgroups of SIZE, folded to rows of GRID_X
// Twin       crossEntropyBackward in tensor/twin-ops.ts; tolerance 1e-5 of the largest element
// Source     online softmax: Milakov and Gimelshein, arXiv 1805.02867
@group(0) @binding(0) var<storage, read> logits: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> targets: array<u32>;
@group(0) @binding(2) var<storage, read_write> dlogits: array<vec4<f32>>;

const QUADS = V / 4u;

@compute @workgroup_size(SIZE)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let n = (group.x + group.y * GRID_X) * SIZE + thread;
  if (n >= N) {
    return;
  }
  // The minimum is n; by it compilers can tell that indices are in range, and check them no more.
  let start = min(n, N - 1u) * QUADS;
  var top = -3e38;
  var total = 0.0;
  for (var i = 0u; i < QUADS; i++) {
    let quad = logits[start + i];
    let higher = max(max(top, max(quad.x, quad.y)), max(quad.z, quad.w));
    total = total * exp(top - higher) + dot(exp(quad - higher), vec4<f32>(1.0));
    top = higher;
  }
  let wanted = vec4<u32>(targets[n]);
  for (var i = 0u; i < QUADS; i++) {
    let columns = 4u * i + vec4<u32>(0u, 1u, 2u, 3u);
    let p = exp(logits[start + i] - top) / total;
    dlogits[start + i] = (p - select(vec4<f32>(), vec4<f32>(1.0), columns == wanted)) / f32(COUNT);
  }
}
