// attention: causal, grouped-query, flash-style. out [N,H·D] = softmax(q·kᵀ/√D)·v; lse = log Σ exp of each row's scaled
// scores. A workgroup owns ROWS query rows of one head, 4 invocations ("lanes") a row; it stages TILE keys and values at a
// time, keeps a running maximum and sum, and stops at the diagonal. One dispatch, no T² buffer.
// Score phase: a lane owns TILE/4 keys. Output phase: a lane owns every fourth quad of D.
//
// Bindings   0 q [N,H,D/4] vec4   1 k [N,KV,D/4] vec4   2 v [N,KV,D/4] vec4   3 out [N,H,D/4] vec4   4 lse [B·H·T], (b·H + h)·T + t
// Constants  B T H KV D (multiple of 4, at most 128); SCALE = 1/√D; ROWS; TILE 16 (D ≤ 64) or 8; GRID_X
// Dispatch   B·H·ceil(T/ROWS) workgroups of 4·ROWS, folded to rows of GRID_X; (2·D + 2·ROWS)·4·TILE bytes of workgroup memory
// Twin       attention in tensor/twin-ops.ts; tolerance 1e-5 of the largest element
// Source     Dao, arXiv 2307.08691 (FlashAttention-2); Ainslie et al., arXiv 2305.13245 (grouped queries)
@group(0) @binding(0) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> k: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> out: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> lse: array<f32>;

const QUADS = D / 4u;
const OWN_QUADS = (QUADS + 3u) / 4u;
const OWN_KEYS = TILE / 4u;
const BLOCKS = (T + ROWS - 1u) / ROWS;
const GROUPS = B * H * BLOCKS;

var<workgroup> keys: array<vec4<f32>, TILE * QUADS>;
var<workgroup> values: array<vec4<f32>, TILE * QUADS>;
var<workgroup> scores: array<f32, ROWS * TILE>;
var<workgroup> weights: array<f32, ROWS * TILE>;

@compute @workgroup_size(4u * ROWS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let wanted = group.x + group.y * GRID_X;
  let task = min(wanted, GROUPS - 1u);
  // The longest rows first, so that the short ones fill the gaps at the end.
  let block = BLOCKS - 1u - task % BLOCKS;
  let h = (task / BLOCKS) % H;
  let b = task / (BLOCKS * H);
  let kv_head = h / (H / KV);
  let row = thread / 4u;
  let lane = thread % 4u;
  let t = block * ROWS + row;
  let q_start = ((b * T + min(t, T - 1u)) * H + h) * QUADS;
  let own = row * TILE + lane * OWN_KEYS;

  var sums: array<vec4<f32>, OWN_QUADS>;
  var top = -3e38;
  var total = 0.0;
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
    for (var i = 0u; i < QUADS; i++) {
      let x = q[q_start + i];
      for (var j = 0u; j < OWN_KEYS; j++) {
        dots[j] += dot(x, keys[(lane * OWN_KEYS + j) * QUADS + i]);
      }
    }
    let first = tile * TILE + lane * OWN_KEYS;
    for (var j = 0u; j < OWN_KEYS; j++) {
      scores[own + j] = select(-3e38, dots[j] * SCALE, first + j <= t);
    }
    workgroupBarrier();
    var higher = top;
    for (var j = 0u; j < TILE; j++) {
      higher = max(higher, scores[row * TILE + j]);
    }
    for (var j = 0u; j < OWN_KEYS; j++) {
      weights[own + j] = select(0.0, exp(scores[own + j] - higher), first + j <= t);
    }
    workgroupBarrier();
    let shrink = exp(top - higher);
    top = higher;
    total *= shrink;
    for (var i = 0u; i < OWN_QUADS; i++) {
      sums[i] *= shrink;
    }
    for (var j = 0u; j < TILE; j++) {
      let weight = weights[row * TILE + j];
      total += weight;
      for (var i = 0u; i < OWN_QUADS; i++) {
        let quad = lane + 4u * i;
        if (quad < QUADS) {
          sums[i] += weight * values[j * QUADS + quad];
        }
      }
    }
  }

  if (wanted < GROUPS && t < T) {
    for (var i = 0u; i < OWN_QUADS; i++) {
      let quad = lane + 4u * i;
      if (quad < QUADS) {
        out[q_start + quad] = sums[i] / total;
      }
    }
    if (lane == 0u) {
      lse[(b * H + h) * T + t] = top + log(total);
    }
  }
}
