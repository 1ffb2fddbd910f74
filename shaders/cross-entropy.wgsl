// crossEntropy: losses[n] = logsumexp_v logits[n,v] − logits[n, targets[n]]. A workgroup owns a
// row and reads it once: every invocation keeps a running maximum and the sum of exponentials below it.
//
// Bindings   0 logits [N,V]   1 targets [N] u32, each below V (the host checks)   2 losses [N]
// Constants  N V; SIZE invocations a workgroup, FOLD = √SIZE; GRID_X
// Dispatch   N workgroups of SIZE, folded to rows of GRID_X
// Twin       crossEntropy in tensor/twin-ops.ts; tolerance 1e-5 of the largest element
// Source     online softmax: Milakov and Gimelshein, arXiv 1805.02867
@group(0) @binding(0) var<storage, read> logits: array<f32>;
@group(0) @binding(1) var<storage, read> targets: array<u32>;
@group(0) @binding(2) var<storage, read_write> losses: array<f32>;

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
  if (thread == 0u && n < N) {
    var all = folded[0];
    for (var i = 1u; i < FOLD; i++) {
      all = merge(all, folded[i]);
    }
    losses[n] = all.x + log(all.y) - logits[start + targets[n]];
  }
}
