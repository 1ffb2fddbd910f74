// attentionBackward, subgroups, second of two dispatches: dk and dv. An invocation owns $C successive keys of one key/value
// head, with key, value and their gradients in registers, and walks the queries four at a time from the first key of its
// workgroup on, for every query head of the group in turn, recomputing P = exp(q·kᵀ/√D − lse); dv = Pᵀ·dout;
// dS = P·(dout·vᵀ − delta)/√D; dk = dSᵀ·q. Queries and their gradients are read by four lanes and broadcast, as in
// attention-subgroup.wgsl: right for every subgroup size from 4 on. Owner-computes: no atomics, no barriers.
//
// Bindings   0 q   1 k   2 v   3 dout   4 lse   5 delta   6 dk   7 dv; q, dout [N,H,D/4] vec4; k, v, dk, dv [N,KV,D/4] vec4;
//            lse, delta [B·H·T], (b·H + h)·T + t
// Constants  B T H KV D (multiple of 4, at most 64; $C·D at most 128); SCALE = 1/√D; SIZE invocations a workgroup; GRID_X
// Dispatch   B·KV·ceil(T/(SIZE·$C)) workgroups of SIZE, folded to rows of GRID_X
// Twin       attentionBackward in tensor/twin-ops.ts; tolerance 1e-5 of the largest element
// Source     Dao, arXiv 2307.08691 (FlashAttention-2), section 3.1
enable subgroups;
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
const BLOCK = SIZE * $C;
const BLOCKS = (T + BLOCK - 1u) / BLOCK;
const GROUPS = B * KV * BLOCKS;

// Column i: the quad that lane i read.
fn spread(own: vec4<f32>) -> mat4x4<f32> {
  return mat4x4<f32>(
    subgroupBroadcast(own, 0u), subgroupBroadcast(own, 1u), subgroupBroadcast(own, 2u), subgroupBroadcast(own, 3u));
}

@compute @workgroup_size(SIZE)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
  @builtin(subgroup_invocation_id) lane: u32
) {
  let wanted = group.x + group.y * GRID_X;
  let task = min(wanted, GROUPS - 1u);
  let block = task % BLOCKS;
  let kv_head = (task / BLOCKS) % KV;
  let b = task / (BLOCKS * KV);
  let key$c = block * BLOCK + thread * $C + $cu;
  let row$c = ((b * T + min(key$c, T - 1u)) * KV + kv_head) * QUADS;
  let k$r_$c = k[row$c + $r] * SCALE;
  let v$r_$c = v[row$c + $r];
  var dk$r_$c = vec4<f32>();
  var dv$r_$c = vec4<f32>();
  for (var h = kv_head * SHARERS; h < (kv_head + 1u) * SHARERS; h++) {
    for (var t = block * BLOCK; t < T; t += 4u) {
      // Queries beyond the last one repeat it; their weights are zero below.
      let last = min(t + lane % 4u, T - 1u);
      let start = ((b * T + last) * H + h) * QUADS;
      let sums = spread(vec4<f32>(lse[(b * H + h) * T + last], delta[(b * H + h) * T + last], 0.0, 0.0));
      let turned = transpose(sums);
      var score$c = -turned[0];
      var dweight$c = -turned[1];
      let own$r = q[start + $r];
      let down$r = dout[start + $r];
      { // $r
        let queries = spread(own$r);
        let douts = spread(down$r);
        score$c += k$r_$c * queries;
        dweight$c += v$r_$c * douts;
      }
      let four = vec4<u32>(t, t + 1u, t + 2u, t + 3u);
      let seen$c = (vec4<u32>(key$c) <= four) & (four < vec4<u32>(T));
      let weight$c = exp(select(vec4<f32>(-3e38), score$c, seen$c));
      let dscore$c = weight$c * dweight$c * SCALE;
      { // $r
        let queries = spread(own$r);
        let douts = spread(down$r);
        dk$r_$c += queries * dscore$c;
        dv$r_$c += douts * weight$c;
      }
    }
  }
  { // $c
    if (wanted < GROUPS && key$c < T) {
      dk[row$c + $r] = dk$r_$c;
      dv[row$c + $r] = dv$r_$c;
    }
  }
}
