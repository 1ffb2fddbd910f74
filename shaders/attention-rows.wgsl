// attention, rows: causal, grouped-query. out [N,H·D] = softmax(q·kᵀ/√D)·v; lse = log Σ exp of each row's scaled scores. One
// invocation owns one query of one head: it keeps the query and the sums in registers, a name for each quad, and walks the
// keys up to its own with a running maximum. No workgroup memory, no barriers, no T² buffer: the rung for software
// adapters. Lines with $r are repeated for each quad of D (`unroll` in gpu/shader.ts).
//
// Bindings   0 q [N,H,D/4] vec4   1 k [N,KV,D/4] vec4   2 v [N,KV,D/4] vec4   3 out [N,H,D/4] vec4   4 lse [B·H·T], (b·H + h)·T + t
// Constants  B T H KV D (multiple of 4, at most 64); SCALE = 1/√D; GRID_X
// Dispatch   ceil(B·H·T / 64) workgroups of 64, folded to rows of GRID_X
// Twin       attention in tensor/twin-ops.ts; tolerance 1e-5 of the largest element
// Source     online softmax: Milakov and Gimelshein, arXiv 1805.02867; Ainslie et al., arXiv 2305.13245 (grouped queries)
@group(0) @binding(0) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> k: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> out: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> lse: array<f32>;

const QUADS = D / 4u;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let i = (group.x + group.y * GRID_X) * 64u + thread;
  if (i >= B * H * T) {
    return;
  }
  let t = i % T;
  let h = (i / T) % H;
  let b = i / (T * H);
  let row = ((b * T + t) * H + h) * QUADS;
  let q$r = q[row + $r] * SCALE;
  var sum$r = vec4<f32>();
  var top = -3e38;
  var total = 0.0;
  var at = (b * T * KV + h / (H / KV)) * QUADS;
  for (var key = 0u; key <= t; key++) {
    var score = 0.0;
    score += dot(q$r, k[at + $r]);
    let higher = max(top, score);
    let shrink = exp(top - higher);
    let weight = exp(score - higher);
    total = total * shrink + weight;
    sum$r = sum$r * shrink + weight * v[at + $r];
    top = higher;
    at += KV * QUADS;
  }
  out[row + $r] = sum$r / total;
  lse[i] = top + log(total);
}
