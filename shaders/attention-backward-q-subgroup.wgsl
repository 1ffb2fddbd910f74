// attentionBackward, subgroups, first of two dispatches: delta = Σ_d dout·out and dq. An invocation owns $C successive queries
// of one head, with q, dout and dq in registers, and walks the keys four at a time up to the last query of its workgroup,
// recomputing P = exp(q·kᵀ/√D − lse); dS = P·(dout·vᵀ − delta)/√D; dq = dS·k. Keys and values are read by four lanes and
// broadcast, as in attention-subgroup.wgsl: right for every subgroup size from 4 on. No workgroup memory, no barriers.
//
// Bindings   0 q   1 k   2 v   3 out   4 lse   5 dout   6 delta   7 dq; q, out, dout, dq [N,H,D/4] vec4; k, v [N,KV,D/4]
//            vec4; lse, delta [B·H·T], (b·H + h)·T + t
// Constants  B T H KV D (multiple of 4, at most 64; $C·D at most 128); SCALE = 1/√D; SIZE invocations a workgroup; GRID_X
// Dispatch   B·H·ceil(T/(SIZE·$C)) workgroups of SIZE, folded to rows of GRID_X
// Twin       attentionBackward in tensor/twin-ops.ts; tolerance 1e-5 of the largest element
// Source     Dao, arXiv 2307.08691 (FlashAttention-2), section 3.1
enable subgroups;
@group(0) @binding(0) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> k: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> out: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> lse: array<f32>;
@group(0) @binding(5) var<storage, read> dout: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> delta: array<f32>;
@group(0) @binding(7) var<storage, read_write> dq: array<vec4<f32>>;

const QUADS = D / 4u;
const BLOCK = SIZE * $C;
const BLOCKS = (T + BLOCK - 1u) / BLOCK;
const GROUPS = B * H * BLOCKS;

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
  let block = BLOCKS - 1u - task % BLOCKS;
  let h = (task / BLOCKS) % H;
  let b = task / (BLOCKS * H);
  let t$c = block * BLOCK + thread * $C + $cu;
  let row$c = ((b * T + min(t$c, T - 1u)) * H + h) * QUADS;
  let row_at$c = (b * H + h) * T + min(t$c, T - 1u);
  let top$c = vec4<f32>(lse[row_at$c]);
  var delta$c = 0.0;
  let q$r_$c = q[row$c + $r] * SCALE;
  let dout$r_$c = dout[row$c + $r];
  var sum$r_$c = vec4<f32>();
  delta$c += dot(dout$r_$c, out[row$c + $r]);
  let end = min((block + 1u) * BLOCK, T);
  for (var key = 0u; key < end; key += 4u) {
    let start = ((b * T + min(key + lane % 4u, T - 1u)) * KV + h / (H / KV)) * QUADS;
    var score$c = -top$c;
    var dweight$c = vec4<f32>(-delta$c);
    let own$r = k[start + $r];
    { // $r
      let keys = spread(own$r);
      let values = spread(v[start + $r]);
      score$c += q$r_$c * keys;
      dweight$c += dout$r_$c * values;
    }
    let four = vec4<u32>(key, key + 1u, key + 2u, key + 3u);
    let seen$c = four <= vec4<u32>(t$c);
    let dscore$c = exp(select(vec4<f32>(-3e38), score$c, seen$c)) * dweight$c * SCALE;
    { // $r
      let keys = spread(own$r);
      sum$r_$c += keys * dscore$c;
    }
  }
  { // $c
    if (wanted < GROUPS && t$c < T) {
      dq[row$c + $r] = sum$r_$c;
      delta[row_at$c] = delta$c;
    }
  }
}
