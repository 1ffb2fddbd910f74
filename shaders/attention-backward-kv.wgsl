// attentionBackward, second of two dispatches: dk and dv. A workgroup owns ROWS key/value rows of one key/value head, 4
// lanes a row, and walks the query tiles from the diagonal on, for every query head of the group in turn, recomputing
// P = exp(q·kᵀ/√D − lse); dv = Pᵀ·dout; dS = P·(dout·vᵀ − delta)/√D; dk = dSᵀ·q. Owner-computes: no atomics.
//
// Bindings   0 q   1 k   2 v   3 dout   4 lse   5 delta   6 dk   7 dv; q, dout [N,H,D/4] vec4; k, v, dk, dv [N,KV,D/4] vec4;
//            lse, delta [B·H·T], (b·H + h)·T + t
// Constants  B T H KV D (multiple of 4, at most 128); SCALE = 1/√D; ROWS; TILE 16 (D ≤ 64) or 8; GRID_X
// Dispatch   B·KV·ceil(T/ROWS) workgroups of 4·ROWS, folded to rows of GRID_X; (2·D + 2·ROWS)·4·TILE bytes of workgroup memory
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
const OWN_QUADS = (QUADS + 3u) / 4u;
const OWN_QUERIES = TILE / 4u;
const SHARERS = H / KV;
const BLOCKS = (T + ROWS - 1u) / ROWS;
const TILES = (T + TILE - 1u) / TILE;
const GROUPS = B * KV * BLOCKS;

var<workgroup> queries: array<vec4<f32>, TILE * QUADS>;
var<workgroup> douts: array<vec4<f32>, TILE * QUADS>;
var<workgroup> weights: array<f32, ROWS * TILE>;
var<workgroup> dscores: array<f32, ROWS * TILE>;

@compute @workgroup_size(4u * ROWS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let wanted = group.x + group.y * GRID_X;
  let task = min(wanted, GROUPS - 1u);
  let block = task % BLOCKS;
  let kv_head = (task / BLOCKS) % KV;
  let b = task / (BLOCKS * KV);
  let row = thread / 4u;
  let lane = thread % 4u;
  let key = block * ROWS + row;
  let kv_start = ((b * T + min(key, T - 1u)) * KV + kv_head) * QUADS;
  let own = row * TILE + lane * OWN_QUERIES;

  var dk_sums: array<vec4<f32>, OWN_QUADS>;
  var dv_sums: array<vec4<f32>, OWN_QUADS>;
  for (var sharer = 0u; sharer < SHARERS; sharer++) {
    let h = kv_head * SHARERS + sharer;
    for (var tile = block * ROWS / TILE; tile < TILES; tile++) {
      workgroupBarrier();
      for (var i = thread; i < TILE * QUADS; i += 4u * ROWS) {
        let t = min(tile * TILE + i / QUADS, T - 1u);
        let at = ((b * T + t) * H + h) * QUADS + i % QUADS;
        queries[i] = q[at];
        douts[i] = dout[at];
      }
      workgroupBarrier();
      // Zeroed in so many words: one compiler keeps the last turn's values of a variable declared in a loop.
      var dots = array<f32, OWN_QUERIES>();
      var dweights = array<f32, OWN_QUERIES>();
      for (var i = 0u; i < QUADS; i++) {
        let x = k[kv_start + i];
        let y = v[kv_start + i];
        for (var j = 0u; j < OWN_QUERIES; j++) {
          let at = (lane * OWN_QUERIES + j) * QUADS + i;
          dots[j] += dot(x, queries[at]);
          dweights[j] += dot(y, douts[at]);
        }
      }
      for (var j = 0u; j < OWN_QUERIES; j++) {
        let t = tile * TILE + lane * OWN_QUERIES + j;
        var weight = 0.0;
        var dscore = 0.0;
        if (key <= t && t < T) {
          let at = (b * H + h) * T + t;
          weight = exp(dots[j] * SCALE - lse[at]);
          dscore = weight * (dweights[j] - delta[at]) * SCALE;
        }
        weights[own + j] = weight;
        dscores[own + j] = dscore;
      }
      workgroupBarrier();
      for (var j = 0u; j < TILE; j++) {
        let weight = weights[row * TILE + j];
        let dscore = dscores[row * TILE + j];
        for (var i = 0u; i < OWN_QUADS; i++) {
          let quad = lane + 4u * i;
          if (quad < QUADS) {
            dv_sums[i] += weight * douts[j * QUADS + quad];
            dk_sums[i] += dscore * queries[j * QUADS + quad];
          }
        }
      }
    }
  }

  if (wanted < GROUPS && key < T) {
    for (var i = 0u; i < OWN_QUADS; i++) {
      let quad = lane + 4u * i;
      if (quad < QUADS) {
        dk[kv_start + quad] = dk_sums[i];
        dv[kv_start + quad] = dv_sums[i];
      }
    }
  }
}
