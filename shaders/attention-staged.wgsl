// attention, staged rows: causal, grouped-query. out [N,H·D] = softmax(q·kᵀ/√D)·v; lse = log Σ exp of each row's scaled
// scores. A workgroup owns 64 query rows of one head, one invocation a row, which keeps the query and the sums in registers,
// a name for each quad; TILE keys and values at a time lie in workgroup memory, where all invocations read the same quad at
// once. Four keys share a running maximum; tiles, and quads of keys within one, end at the diagonal. Lines with $r are
// repeated for each quad of D (`unroll` in gpu/shader.ts).
//
// Bindings   0 q [N,H,D/4] vec4   1 k [N,KV,D/4] vec4   2 v [N,KV,D/4] vec4   3 out [N,H,D/4] vec4   4 lse [B·H·T], (b·H + h)·T + t
// Constants  B T H KV D (multiple of 4, at most 64); SCALE = 1/√D; TILE a multiple of 4 that divides 64; GRID_X
// Dispatch   B·H·ceil(T/64) workgroups of 64, folded to rows of GRID_X; 8·D·TILE bytes of workgroup memory
// Twin       attention in tensor/twin-ops.ts; tolerance 1e-5 of the largest element
// Source     Dao, arXiv 2307.08691 (FlashAttention-2); 64 rows, one to an invocation, as in torchlette
//            (src/schedule/attention-skeleton.ts) and ONNX Runtime (flash_attention.wgsl.template)
@group(0) @binding(0) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> k: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> out: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> lse: array<f32>;

const QUADS = D / 4u;
const BLOCKS = (T + 63u) / 64u;
const GROUPS = B * H * BLOCKS;

var<workgroup> keys: array<vec4<f32>, TILE * QUADS>;
var<workgroup> values: array<vec4<f32>, TILE * QUADS>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let wanted = group.x + group.y * GRID_X;
  let task = min(wanted, GROUPS - 1u);
  // The longest rows first, so that the short ones fill the gaps at the end.
  let block = BLOCKS - 1u - task % BLOCKS;
  let h = (task / BLOCKS) % H;
  let b = task / (BLOCKS * H);
  let kv_head = h / (H / KV);
  let t = block * 64u + thread;
  let row = ((b * T + min(t, T - 1u)) * H + h) * QUADS;
  let q$r = q[row + $r] * SCALE;
  var sum$r = vec4<f32>();
  var top = -3e38;
  var total = 0.0;
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
      var score0 = 0.0;
      var score1 = 0.0;
      var score2 = 0.0;
      var score3 = 0.0;
      score0 += dot(q$r, keys[at + $r]);
      score1 += dot(q$r, keys[at + QUADS + $r]);
      score2 += dot(q$r, keys[at + 2u * QUADS + $r]);
      score3 += dot(q$r, keys[at + 3u * QUADS + $r]);
      let seen = vec4<u32>(first + j) + vec4<u32>(0u, 1u, 2u, 3u) <= vec4<u32>(t);
      let scores = select(vec4<f32>(-3e38), vec4<f32>(score0, score1, score2, score3), seen);
      let higher = max(max(top, max(scores.x, scores.y)), max(scores.z, scores.w));
      let weights = select(vec4<f32>(), exp(scores - higher), seen);
      let shrink = exp(top - higher);
      total = total * shrink + weights.x + weights.y + weights.z + weights.w;
      sum$r = sum$r * shrink + weights.x * values[at + $r] + weights.y * values[at + QUADS + $r] + weights.z * values[at + 2u * QUADS + $r] + weights.w * values[at + 3u * QUADS + $r];
      top = higher;
    }
  }
  if (wanted < GROUPS && t < T) {
    out[row + $r] = sum$r / total;
    lse[(b * H + h) * T + t] = top + log(total);
  }
}
