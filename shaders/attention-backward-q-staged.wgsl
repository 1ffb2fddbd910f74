// attentionBackward, staged rows, first of two dispatches: delta = Σ_d dout·out and dq. A workgroup owns 64 query rows of one
// head, one invocation a row, which keeps query, dout and dq in registers; TILE keys and values at a time lie in workgroup
// memory. It walks the keys up to the diagonal, four at a time, recomputing P = exp(q·kᵀ/√D − lse);
// dS = P·(dout·vᵀ − delta)/√D; dq = dS·k. Owner-computes: no atomics. Lines with $r are repeated for each quad of D.
//
// Bindings   0 q   1 k   2 v   3 out   4 lse   5 dout   6 delta   7 dq; q, out, dout, dq [N,H,D/4] vec4; k, v [N,KV,D/4]
//            vec4; lse, delta [B·H·T], (b·H + h)·T + t
// Constants  B T H KV D (multiple of 4, at most 64); SCALE = 1/√D; TILE a multiple of 4 that divides 64; GRID_X
// Dispatch   B·H·ceil(T/64) workgroups of 64, folded to rows of GRID_X; 8·D·TILE bytes of workgroup memory
// Twin       attentionBackward in tensor/twin-ops.ts; tolerance 1e-5 of the largest element
// Source     Dao, arXiv 2307.08691 (FlashAttention-2), section 3.1; sizes as in torchlette (src/schedule/attention-skeleton.ts)
@group(0) @binding(0) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> k: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> out: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> lse: array<f32>;
@group(0) @binding(5) var<storage, read> dout: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> delta: array<f32>;
@group(0) @binding(7) var<storage, read_write> dq: array<vec4<f32>>;

const QUADS = D / 4u;
const BLOCKS = (T + 63u) / 64u;
const GROUPS = B * H * BLOCKS;

var<workgroup> keys: array<vec4<f32>, TILE * QUADS>;
var<workgroup> values: array<vec4<f32>, TILE * QUADS>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let wanted = group.x + group.y * GRID_X;
  let task = min(wanted, GROUPS - 1u);
  let block = BLOCKS - 1u - task % BLOCKS;
  let h = (task / BLOCKS) % H;
  let b = task / (BLOCKS * H);
  let kv_head = h / (H / KV);
  let t = block * 64u + thread;
  let row_at = (b * H + h) * T + min(t, T - 1u);
  let row = ((b * T + min(t, T - 1u)) * H + h) * QUADS;
  let top = lse[row_at];
  var d_row = 0.0;
  let q$r = q[row + $r] * SCALE;
  let dout$r = dout[row + $r];
  var sum$r = vec4<f32>();
  d_row += dot(dout$r, out[row + $r]);
  let end = min(block * 64u + 64u, T);
  for (var first = 0u; first < end; first += TILE) {
    workgroupBarrier();
    for (var i = thread; i < TILE * QUADS; i += 64u) {
      let at = ((b * T + min(first + i / QUADS, T - 1u)) * KV + kv_head) * QUADS + i % QUADS;
      keys[i] = k[at];
      values[i] = v[at];
    }
    workgroupBarrier();
    for (var j = 0u; j < TILE && first + j <= t; j += 4u) {
      let at = j * QUADS;
      var score0 = -top;
      var score1 = -top;
      var score2 = -top;
      var score3 = -top;
      var dweight0 = -d_row;
      var dweight1 = -d_row;
      var dweight2 = -d_row;
      var dweight3 = -d_row;
      score0 += dot(q$r, keys[at + $r]);
      score1 += dot(q$r, keys[at + QUADS + $r]);
      score2 += dot(q$r, keys[at + 2u * QUADS + $r]);
      score3 += dot(q$r, keys[at + 3u * QUADS + $r]);
      dweight0 += dot(dout$r, values[at + $r]);
      dweight1 += dot(dout$r, values[at + QUADS + $r]);
      dweight2 += dot(dout$r, values[at + 2u * QUADS + $r]);
      dweight3 += dot(dout$r, values[at + 3u * QUADS + $r]);
      let seen = vec4<u32>(first + j) + vec4<u32>(0u, 1u, 2u, 3u) <= vec4<u32>(t);
      let weights = select(vec4<f32>(), exp(vec4<f32>(score0, score1, score2, score3)), seen);
      let dscores = weights * vec4<f32>(dweight0, dweight1, dweight2, dweight3) * SCALE;
      sum$r = sum$r + dscores.x * keys[at + $r] + dscores.y * keys[at + QUADS + $r] + dscores.z * keys[at + 2u * QUADS + $r] + dscores.w * keys[at + 3u * QUADS + $r];
    }
  }
  if (wanted < GROUPS && t < T) {
    dq[row + $r] = sum$r;
    delta[row_at] = d_row;
  }
}
