// attentionBackward, rows, first of two dispatches: delta = Σ_d dout·out and dq. One invocation owns one query of one head,
// keeps it, its dout and its dq in registers, and walks the keys up to its own, recomputing P = exp(q·kᵀ/√D − lse);
// dS = P·(dout·vᵀ − delta)/√D; dq = dS·k. No barriers. Lines with $r are repeated for each quad of D.
//
// Bindings   0 q   1 k   2 v   3 out   4 lse   5 dout   6 delta   7 dq; q, out, dout, dq [N,H,D/4] vec4; k, v [N,KV,D/4]
//            vec4; lse, delta [B·H·T], (b·H + h)·T + t
// Constants  B T H KV D (multiple of 4, at most 64); SCALE = 1/√D; GRID_X
// Dispatch   ceil(B·H·T / 64) workgroups of 64, folded to rows of GRID_X
// Twin       attentionBackward in tensor/twin-ops.ts; tolerance 1e-5 of the largest element
// Source     Dao, arXiv 2307.08691 (FlashAttention-2), section 3.1
@group(0) @binding(0) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> k: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> out: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> lse: array<f32>;
@group(0) @binding(5) var<storage, read> dout: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> delta: array<f32>;
@group(0) @binding(7) var<storage, read_write> dq: array<vec4<f32>>;

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
  let top = lse[i];
  var d_row = 0.0;
  let q$r = q[row + $r] * SCALE;
  let dout$r = dout[row + $r];
  var sum$r = vec4<f32>();
  d_row += dot(dout$r, out[row + $r]);
  var at = (b * T * KV + h / (H / KV)) * QUADS;
  for (var key = 0u; key <= t; key++) {
    var score = -top;
    var dweight = -d_row;
    let k$r = k[at + $r];
    score += dot(q$r, k$r);
    dweight += dot(dout$r, v[at + $r]);
    let dscore = exp(score) * dweight * SCALE;
    sum$r += dscore * k$r;
    at += KV * QUADS;
  }
  dq[row + $r] = sum$r;
  delta[i] = d_row;
}
