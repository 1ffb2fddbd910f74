// attention, naive: one invocation owns one element of out and walks its row's keys with a running maximum and sum. Every
// head width works; scores are computed D times over. The first rung, and the one for head widths the fast kernel lacks.
//
// Bindings   0 q [N,H,D]   1 k [N,KV,D]   2 v [N,KV,D]   3 out [N,H,D]   4 lse [B·H·T], (b·H + h)·T + t
// Constants  B T H KV D; SCALE = 1/√D; GRID_X workgroups in a grid row
// Dispatch   ceil(B·T·H·D / 64) workgroups of 64, folded to rows of GRID_X
// Twin       attention in tensor/twin-ops.ts; tolerance 1e-5 of the largest element
// Source     Milakov and Gimelshein, arXiv 1805.02867
@group(0) @binding(0) var<storage, read> q: array<f32>;
@group(0) @binding(1) var<storage, read> k: array<f32>;
@group(0) @binding(2) var<storage, read> v: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
@group(0) @binding(4) var<storage, read_write> lse: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let i = (group.x + group.y * GRID_X) * 64u + thread;
  if (i >= B * T * H * D) {
    return;
  }
  let d = i % D;
  let h = (i / D) % H;
  let t = (i / (D * H)) % T;
  let b = i / (D * H * T);
  let q_start = i - d;
  let kv_head = h / (H / KV);
  var top = -3e38;
  var total = 0.0;
  var sum = 0.0;
  for (var key = 0u; key <= t; key++) {
    let start = ((b * T + key) * KV + kv_head) * D;
    var score = 0.0;
    for (var e = 0u; e < D; e++) {
      score += q[q_start + e] * k[start + e];
    }
    score *= SCALE;
    let higher = max(top, score);
    let shrink = exp(top - higher);
    let weight = exp(score - higher);
    top = higher;
    total = total * shrink + weight;
    sum = sum * shrink + weight * v[start + d];
  }
  out[i] = sum / total;
  if (d == 0u) {
    lse[(b * H + h) * T + t] = top + log(total);
  }
}
