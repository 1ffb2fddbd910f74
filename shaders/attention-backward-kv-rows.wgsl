// attentionBackward, rows, second of two dispatches: dk and dv. One invocation owns one key of one key/value head, keeps
// key, value and their gradients in registers, and walks the queries from its own on, for every query head of the group in
// turn, recomputing P = exp(q·kᵀ/√D − lse); dv = Pᵀ·dout; dS = P·(dout·vᵀ − delta)/√D; dk = dSᵀ·q. Owner-computes: no
// atomics, no barriers. Lines with $r are repeated for each quad of D.
//
// Bindings   0 q   1 k   2 v   3 dout   4 lse   5 delta   6 dk   7 dv; q, dout [N,H,D/4] vec4; k, v, dk, dv [N,KV,D/4] vec4;
//            lse, delta [B·H·T], (b·H + h)·T + t
// Constants  B T H KV D (multiple of 4, at most 64); SCALE = 1/√D; GRID_X
// Dispatch   ceil(B·KV·T / 64) workgroups of 64, folded to rows of GRID_X
// Twin       attentionBackward in tensor/twin-ops.ts; tolerance 1e-5 of the largest element
// Source     Dao, arXiv 2307.08691 (FlashAttention-2), section 3.1
@group(0) @binding(0) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> k: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> dout: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> lse: array<f32>;
@group(0) @binding(5) var<storage, read> delta: array<f32>;
@group(0) @binding(6) var<storage, read_write> dk: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> dv: array<vec4<f32>>;

const QUADS = D / 4u;
const SHARERS = H / KV;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let i = (group.x + group.y * GRID_X) * 64u + thread;
  if (i >= B * KV * T) {
    return;
  }
  let key = i % T;
  let kv_head = (i / T) % KV;
  let b = i / (T * KV);
  let row = ((b * T + key) * KV + kv_head) * QUADS;
  let k$r = k[row + $r] * SCALE;
  let v$r = v[row + $r];
  var dk$r = vec4<f32>();
  var dv$r = vec4<f32>();
  for (var h = kv_head * SHARERS; h < (kv_head + 1u) * SHARERS; h++) {
    let sums = (b * H + h) * T;
    var at = ((b * T + key) * H + h) * QUADS;
    for (var t = key; t < T; t++) {
      var score = -lse[sums + t];
      var dweight = -delta[sums + t];
      let q$r = q[at + $r];
      let dout$r = dout[at + $r];
      score += dot(q$r, k$r);
      dweight += dot(dout$r, v$r);
      let weight = exp(score);
      let dscore = weight * dweight * SCALE;
      dv$r += weight * dout$r;
      dk$r += dscore * q$r;
      at += H * QUADS;
    }
  }
  dk[row + $r] = dk$r;
  dv[row + $r] = dv$r;
}
