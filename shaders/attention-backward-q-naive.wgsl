// attentionBackward, naive, first of two dispatches: delta = Σ_d dout·out and dq; one invocation owns one element of dq.
//
// Bindings   0 q   1 k   2 v   3 out   4 lse   5 dout   6 delta   7 dq; q, out, dout, dq [N,H,D]; k, v [N,KV,D]; lse, delta
//            [B·H·T], (b·H + h)·T + t
// Constants  B T H KV D; SCALE = 1/√D; GRID_X workgroups in a grid row
// Dispatch   ceil(B·T·H·D / 64) workgroups of 64, folded to rows of GRID_X
// Twin       attentionBackward in tensor/twin-ops.ts; tolerance 1e-5 of the largest element
// Source     the definition
@group(0) @binding(0) var<storage, read> q: array<f32>;
@group(0) @binding(1) var<storage, read> k: array<f32>;
@group(0) @binding(2) var<storage, read> v: array<f32>;
@group(0) @binding(3) var<storage, read> out: array<f32>;
@group(0) @binding(4) var<storage, read> lse: array<f32>;
@group(0) @binding(5) var<storage, read> dout: array<f32>;
@group(0) @binding(6) var<storage, read_write> delta: array<f32>;
@group(0) @binding(7) var<storage, read_write> dq: array<f32>;

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
  let row_at = (b * H + h) * T + t;
  let kv_head = h / (H / KV);
  var d_row = 0.0;
  for (var e = 0u; e < D; e++) {
    d_row += dout[q_start + e] * out[q_start + e];
  }
  var sum = 0.0;
  for (var key = 0u; key <= t; key++) {
    let start = ((b * T + key) * KV + kv_head) * D;
    var score = 0.0;
    var dweight = 0.0;
    for (var e = 0u; e < D; e++) {
      score += q[q_start + e] * k[start + e];
      dweight += dout[q_start + e] * v[start + e];
    }
    sum += exp(score * SCALE - lse[row_at]) * (dweight - d_row) * SCALE * k[start + d];
  }
  dq[i] = sum;
  if (d == 0u) {
    delta[row_at] = d_row;
  }
}
