// attentionBackward, naive, second of two dispatches: dk and dv; one invocation owns one element of both.
//
// Bindings   0 q   1 k   2 v   3 dout   4 lse   5 delta   6 dk   7 dv; q, dout [N,H,D]; k, v, dk, dv [N,KV,D]; lse, delta
//            [B·H·T], (b·H + h)·T + t
// Constants  B T H KV D; SCALE = 1/√D; GRID_X workgroups in a grid row
// Dispatch   ceil(B·T·KV·D / 64) workgroups of 64, folded to rows of GRID_X
// Twin       attentionBackward in tensor/twin-ops.ts; tolerance 1e-5 of the largest element
// Source     the definition
@group(0) @binding(0) var<storage, read> q: array<f32>;
@group(0) @binding(1) var<storage, read> k: array<f32>;
@group(0) @binding(2) var<storage, read> v: array<f32>;
@group(0) @binding(3) var<storage, read> dout: array<f32>;
@group(0) @binding(4) var<storage, read> lse: array<f32>;
@group(0) @binding(5) var<storage, read> delta: array<f32>;
@group(0) @binding(6) var<storage, read_write> dk: array<f32>;
@group(0) @binding(7) var<storage, read_write> dv: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let i = (group.x + group.y * GRID_X) * 64u + thread;
  if (i >= B * T * KV * D) {
    return;
  }
  let d = i % D;
  let kv_head = (i / D) % KV;
  let key = (i / (D * KV)) % T;
  let b = i / (D * KV * T);
  let kv_start = i - d;
  var dk_sum = 0.0;
  var dv_sum = 0.0;
  for (var h = kv_head * (H / KV); h < (kv_head + 1u) * (H / KV); h++) {
    for (var t = key; t < T; t++) {
      let start = ((b * T + t) * H + h) * D;
      let row_at = (b * H + h) * T + t;
      var score = 0.0;
      var dweight = 0.0;
      for (var e = 0u; e < D; e++) {
        score += q[start + e] * k[kv_start + e];
        dweight += dout[start + e] * v[kv_start + e];
      }
      let weight = exp(score * SCALE - lse[row_at]);
      dv_sum += weight * dout[start + d];
      dk_sum += weight * (dweight - delta[row_at]) * SCALE * q[start + d];
    }
  }
  dk[i] = dk_sum;
  dv[i] = dv_sum;
}
