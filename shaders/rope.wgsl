// rope: pairs (i, i + D/2) of every head turn by t·base^(−2i/D), t = row mod T; INVERSE turns back. One invocation owns a
// pair. Cosines and sines come from a table that the host makes in double precision: WGSL's own sin and cos promise no
// more than 2^-11 near zero and nothing for large angles.
//
// Bindings   0 x [N,C]   1 turns [T,D/2] vec2 of (cos, sin)   2 out [N,C]
// Constants  N C T D; INVERSE; GRID_X workgroups in a grid row
// Dispatch   ceil(N·C/2 / 256) workgroups of 256, folded to rows of GRID_X
// Twin       rope in tensor/twin-ops.ts; tolerance 1e-6 of the largest element
// Source     Su et al., arXiv 2104.09864; half-split pairing as in Llama's published weights
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> turns: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

const HALF = D / 2u;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let i = (group.x + group.y * GRID_X) * 256u + thread;
  if (i >= N * C / 2u) {
    return;
  }
  let n = i / (C / 2u);
  let pair = i % HALF;
  let low = (i / HALF) * D + pair;
  let turn = turns[(n % T) * HALF + pair];
  let sine = select(turn.y, -turn.y, INVERSE);
  let p = x[low];
  let q = x[low + HALF];
  out[low] = p * turn.x - q * sine;
  out[low + HALF] = p * sine + q * turn.x;
}
