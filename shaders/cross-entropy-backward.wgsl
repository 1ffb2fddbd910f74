// crossEntropyBackward: dlogits[n,v] = (softmax(logits[n])[v] − [v = targets[n]]) / COUNT. A workgroup owns a row, reads it
// once for its maximum and sum of exponentials and once more to write the gradient, which may go where the logits are.
//
// Bindings   0 logits [N,V]   1 targets [N] u32, each below V (the host checks)   2 dlogits [N,V]
// Constants  N V; COUNT losses in the mean; SIZE invocations a workgroup, FOLD = √SIZE; GRID_X
// Dispatch   N workgroups of SIZE, folded to rows of GRID_X
// Twin       crossEntropyBackward in tensor/twin-ops.ts; tolerance 1e-5 of the largest element
// Source     online softmax: Milakov and Gimelshein, arXiv 1805.02867
@group(0) @binding(0) var<storage, read> logits: array<f32>;
@group(0) @binding(1) var<storage, read> targets: array<u32>;
@group(0) @binding(2) var<storage, read_write> dlogits: array<f32>;

// x: a maximum so far; y: Σ exp(value − x).
var<workgroup> parts: array<vec2<f32>, SIZE>;
var<workgroup> folded: array<vec2<f32>, FOLD>;

fn merge(p: vec2<f32>, q: vec2<f32>) -> vec2<f32> {
  let top = max(p.x, q.x);
  return vec2<f32>(top, p.y * exp(p.x - top) + q.y * exp(q.x - top));
}

@compute @workgroup_size(SIZE)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let n = group.x + group.y * GRID_X;
  let start = min(n, N - 1u) * V;
  var part = vec2<f32>(-3e38, 0.0);
  for (var v = thread; v < V; v += SIZE) {
    part = merge(part, vec2<f32>(logits[start + v], 1.0));
  }
  parts[thread] = part;
  workgroupBarrier();
  if (thread < FOLD) {
    var sum = parts[thread * FOLD];
    for (var i = 1u; i < FOLD; i++) {
      sum = merge(sum, parts[thread * FOLD + i]);
    }
    folded[thread] = sum;
  }
  workgroupBarrier();
  if (n < N) {
    var all = folded[0];
    for (var i = 1u; i < FOLD; i++) {
      all = merge(all, folded[i]);
    }
    let wanted = targets[n];
    for (var v = thread; v < V; v += SIZE) {
      let p = exp(logits[start + v] - all.x) / all.y;
      dlogits[start + v] = (p - select(0.0, 1.0, v == wanted)) / f32(COUNT);
    }
  }
}
