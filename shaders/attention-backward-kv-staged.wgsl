// attentionBackward, staged rows, second of two dispatches: dk and dv. A workgroup owns 64 key/value rows of one key/value
// head, one invocation a row, which keeps key, value and their gradients in registers; TILE queries and their douts at a time
// lie in workgroup memory. It walks the queries from the diagonal on, four at a time, for every query head of the group in
// turn, recomputing P = exp(q·kᵀ/√D − lse); dv = Pᵀ·dout; dS = P·(dout·vᵀ − delta)/√D; dk = dSᵀ·q. Owner-computes: no
// atomics. Lines with $r are repeated for each quad of D.
//
// Bindings   0 q   1 k   2 v   3 dout   4 lse   5 delta   6 dk   7 dv; q, dout [N,H,D/4] vec4; k, v, dk, dv [N,KV,D/4] vec4;
//            lse, delta [B·H·T], (b·H + h)·T + t
// Constants  B T H KV D (multiple of 4, at most 64); SCALE = 1/√D; TILE a multiple of 4 that divides 64; GRID_X
// Dispatch   B·KV·ceil(T/64) workgroups of 64, folded to rows of GRID_X; 8·(D + 1)·TILE bytes of workgroup memory
// Twin       attentionBackward in tensor/twin-ops.ts; tolerance 1e-5 of the largest element
// Source     Dao, arXiv 2307.08691 (FlashAttention-2), section 3.1; sizes as in torchlette (src/schedule/attention-skeleton.ts)
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
const BLOCKS = (T + 63u) / 64u;
const GROUPS = B * KV * BLOCKS;

var<workgroup> queries: array<vec4<f32>, TILE * QUADS>;
var<workgroup> douts: array<vec4<f32>, TILE * QUADS>;
var<workgroup> tops: array<f32, TILE>;
var<workgroup> deltas: array<f32, TILE>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let wanted = group.x + group.y * GRID_X;
  let task = min(wanted, GROUPS - 1u);
  let block = task % BLOCKS;
  let kv_head = (task / BLOCKS) % KV;
  let b = task / (BLOCKS * KV);
  let key = block * 64u + thread;
  let row = ((b * T + min(key, T - 1u)) * KV + kv_head) * QUADS;
  let k$r = k[row + $r] * SCALE;
  let v$r = v[row + $r];
  var dk$r = vec4<f32>();
  var dv$r = vec4<f32>();
  for (var h = kv_head * SHARERS; h < (kv_head + 1u) * SHARERS; h++) {
    for (var first = block * 64u; first < T; first += TILE) {
      workgroupBarrier();
      for (var i = thread; i < TILE * QUADS; i += 64u) {
        let at = ((b * T + min(first + i / QUADS, T - 1u)) * H + h) * QUADS + i % QUADS;
        queries[i] = q[at];
        douts[i] = dout[at];
      }
      if (thread < TILE) {
        let at = (b * H + h) * T + min(first + thread, T - 1u);
        tops[thread] = lse[at];
        deltas[thread] = delta[at];
      }
      workgroupBarrier();
      for (var j = 0u; j < TILE; j += 4u) {
        let at = j * QUADS;
        var score0 = -tops[j];
        var score1 = -tops[j + 1u];
        var score2 = -tops[j + 2u];
        var score3 = -tops[j + 3u];
        var dweight0 = -deltas[j];
        var dweight1 = -deltas[j + 1u];
        var dweight2 = -deltas[j + 2u];
        var dweight3 = -deltas[j + 3u];
        score0 += dot(k$r, queries[at + $r]);
        score1 += dot(k$r, queries[at + QUADS + $r]);
        score2 += dot(k$r, queries[at + 2u * QUADS + $r]);
        score3 += dot(k$r, queries[at + 3u * QUADS + $r]);
        dweight0 += dot(v$r, douts[at + $r]);
        dweight1 += dot(v$r, douts[at + QUADS + $r]);
        dweight2 += dot(v$r, douts[at + 2u * QUADS + $r]);
        dweight3 += dot(v$r, douts[at + 3u * QUADS + $r]);
        let t = vec4<u32>(first + j) + vec4<u32>(0u, 1u, 2u, 3u);
        let seen = (t >= vec4<u32>(key)) & (t < vec4<u32>(T));
        let weights = select(vec4<f32>(), exp(vec4<f32>(score0, score1, score2, score3)), seen);
        let dscores = weights * vec4<f32>(dweight0, dweight1, dweight2, dweight3) * SCALE;
        dv$r = dv$r + weights.x * douts[at + $r] + weights.y * douts[at + QUADS + $r] + weights.z * douts[at + 2u * QUADS + $r] + weights.w * douts[at + 3u * QUADS + $r];
        dk$r = dk$r + dscores.x * queries[at + $r] + dscores.y * queries[at + QUADS + $r] + dscores.z * queries[at + 2u * QUADS + $r] + dscores.w * queries[at + 3u * QUADS + $r];
      }
    }
  }
  if (wanted < GROUPS && key < T) {
    dk[row + $r] = dk$r;
    dv[row + $r] = dv$r;
  }
}
