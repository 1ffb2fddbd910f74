// attentionBackward, first of two dispatches: delta = Σ_d dout·out and dq. A workgroup owns ROWS query rows of one head, 4
// lanes a row, and walks key tiles up to the diagonal, recomputing P = exp(q·kᵀ/√D − lse); dS = P·(dout·vᵀ − delta)/√D;
// dq = dS·k. Owner-computes: no atomics.
//
// Bindings   0 q   1 k   2 v   3 out   4 lse   5 dout   6 delta   7 dq; q, out, dout, dq [N,H,D/4] vec4; k, v [N,KV,D/4]
//            vec4; lse, delta [B·H·T], (b·H + h)·T + t
// Constants  B T H KV D (multiple of 4, at most 128); SCALE = 1/√D; ROWS; TILE 16 (D ≤ 64) or 8; GRID_X
// Dispatch   B·H·ceil(T/ROWS) workgroups of 4·ROWS, folded to rows of GRID_X; (2·D + ROWS)·4·TILE bytes of workgroup memory
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
const OWN_QUADS = (QUADS + 3u) / 4u;
const OWN_KEYS = TILE / 4u;
const BLOCKS = (T + ROWS - 1u) / ROWS;
const GROUPS = B * H * BLOCKS;

var<workgroup> keys: array<vec4<f32>, TILE * QUADS>;
var<workgroup> values: array<vec4<f32>, TILE * QUADS>;
var<workgroup> dscores: array<f32, ROWS * TILE>;

@compute @workgroup_size(4u * ROWS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let wanted = group.x + group.y * GRID_X;
  let task = min(wanted, GROUPS - 1u);
  let block = BLOCKS - 1u - task % BLOCKS;
  let h = (task / BLOCKS) % H;
  let b = task / (BLOCKS * H);
  let kv_head = h / (H / KV);
  let row = thread / 4u;
  let lane = thread % 4u;
  let t = block * ROWS + row;
  let q_start = ((b * T + min(t, T - 1u)) * H + h) * QUADS;
  let row_at = (b * H + h) * T + min(t, T - 1u);
  let own = row * TILE + lane * OWN_KEYS;

  var d_row = 0.0;
  for (var i = 0u; i < QUADS; i++) {
    d_row += dot(dout[q_start + i], out[q_start + i]);
  }
  let lse_row = lse[row_at];
  var sums: array<vec4<f32>, OWN_QUADS>;
  let tiles = min(block * ROWS + ROWS - 1u, T - 1u) / TILE + 1u;
  for (var tile = 0u; tile < tiles; tile++) {
    workgroupBarrier();
    for (var i = thread; i < TILE * QUADS; i += 4u * ROWS) {
      let key = min(tile * TILE + i / QUADS, T - 1u);
      let at = ((b * T + key) * KV + kv_head) * QUADS + i % QUADS;
      keys[i] = k[at];
      values[i] = v[at];
    }
    workgroupBarrier();
    // Zeroed in so many words: one compiler keeps the last turn's values of a variable declared in a loop.
    var dots = array<f32, OWN_KEYS>();
    var dweights = array<f32, OWN_KEYS>();
    for (var i = 0u; i < QUADS; i++) {
      let x = q[q_start + i];
      let dx = dout[q_start + i];
      for (var j = 0u; j < OWN_KEYS; j++) {
        let at = (lane * OWN_KEYS + j) * QUADS + i;
        dots[j] += dot(x, keys[at]);
        dweights[j] += dot(dx, values[at]);
      }
    }
    let first = tile * TILE + lane * OWN_KEYS;
    for (var j = 0u; j < OWN_KEYS; j++) {
      var dscore = 0.0;
      if (first + j <= t && t < T) {
        dscore = exp(dots[j] * SCALE - lse_row) * (dweights[j] - d_row) * SCALE;
      }
      dscores[own + j] = dscore;
    }
    workgroupBarrier();
    for (var j = 0u; j < TILE; j++) {
      let dscore = dscores[row * TILE + j];
      for (var i = 0u; i < OWN_QUADS; i++) {
        let quad = lane + 4u * i;
        if (quad < QUADS) {
          sums[i] += dscore * keys[j * QUADS + quad];
        }
      }
    }
  }

  if (wanted < GROUPS && t < T) {
    for (var i = 0u; i < OWN_QUADS; i++) {
      let quad = lane + 4u * i;
      if (quad < QUADS) {
        dq[q_start + quad] = sums[i];
      }
    }
    if (lane == 0u) {
      delta[row_at] = d_row;
    }
  }
}
