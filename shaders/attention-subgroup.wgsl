// attention, subgroups: causal, grouped-query, flash-style. out [N,H·D] = softmax(q·kᵀ/√D)·v; lse = log Σ exp of each row's
// scaled scores. An invocation owns $C successive queries of one head, with queries and sums in registers, and walks the keys
// four at a time with a running maximum, up to the last query of its workgroup. All of a workgroup need the same keys: each
// lane reads a quarter of them and broadcasts it, so that a quad is read once for 4·$C rows. Only lanes 0 to 3 are read from,
// and nothing depends on how many there are: right for every subgroup size from 4 on. No workgroup memory, no barriers, no T²
// buffer. Lines with $r are repeated for each quad of D, lines with $c for each row (`unroll` in gpu/shader.ts). For software
// adapters with subgroups, whose reads are dear; on a GPU the tuner tries it for long sequences.
//
// Bindings   0 q [N,H,D/4] vec4   1 k [N,KV,D/4] vec4   2 v [N,KV,D/4] vec4   3 out [N,H,D/4] vec4   4 lse [B·H·T], (b·H + h)·T + t
// Constants  B T H KV D (multiple of 4, at most 64; $C·D at most 128); SCALE = 1/√D; SIZE invocations a workgroup; GRID_X
// Dispatch   B·H·ceil(T/(SIZE·$C)) workgroups of SIZE, folded to rows of GRID_X
// Twin       attention in tensor/twin-ops.ts; tolerance 1e-5 of the largest element
// Source     Dao, arXiv 2307.08691 (FlashAttention-2); subgroupBroadcast as in WGSL 17.12, with constant lanes
enable subgroups;
@group(0) @binding(0) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> k: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> out: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> lse: array<f32>;

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
  // Workgroups beyond the last one repeat it, and queries beyond the last one it: all lanes stay together.
  let wanted = group.x + group.y * GRID_X;
  let task = min(wanted, GROUPS - 1u);
  // The longest rows first, so that the short ones fill the gaps at the end.
  let block = BLOCKS - 1u - task % BLOCKS;
  let h = (task / BLOCKS) % H;
  let b = task / (BLOCKS * H);
  let t$c = block * BLOCK + thread * $C + $cu;
  let row$c = ((b * T + min(t$c, T - 1u)) * H + h) * QUADS;
  let q$r_$c = q[row$c + $r] * SCALE;
  var sum$r_$c = vec4<f32>();
  var top$c = -3e38;
  var total$c = 0.0;
  let end = min((block + 1u) * BLOCK, T);
  for (var key = 0u; key < end; key += 4u) {
    let start = ((b * T + min(key + lane % 4u, T - 1u)) * KV + h / (H / KV)) * QUADS;
    var score$c = vec4<f32>();
    { // $r
      let keys = spread(k[start + $r]);
      score$c += q$r_$c * keys;
    }
    let four = vec4<u32>(key, key + 1u, key + 2u, key + 3u);
    let seen$c = select(vec4<f32>(-3e38), score$c, four <= vec4<u32>(t$c));
    let higher$c = max(top$c, max(max(seen$c.x, seen$c.y), max(seen$c.z, seen$c.w)));
    let shrink$c = exp(top$c - higher$c);
    let weight$c = exp(seen$c - vec4<f32>(higher$c));
    total$c = total$c * shrink$c + dot(weight$c, vec4<f32>(1.0));
    top$c = higher$c;
    { // $r
      let values = spread(v[start + $r]);
      sum$r_$c = sum$r_$c * shrink$c + values * weight$c;
    }
  }
  { // $c
    if (wanted < GROUPS && t$c < T) {
      out[row$c + $r] = sum$r_$c / total$c;
      lse[(b * H + h) * T + t$c] = top$c + log(total$c);
    }
  }
}
