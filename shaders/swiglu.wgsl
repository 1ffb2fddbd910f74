// swiglu: out = gate · sigmoid(gate) · up; one invocation owns 4 elements, 256 apart.
//
// Bindings   0 gate [N,F]   1 up [N,F]   2 out [N,F]
// Constants  COUNT = N·F; GRID_X workgroups in a grid row
// Dispatch   ceil(COUNT / 1024) workgroups of 256, folded to rows of GRID_X
// Twin       swiglu in tensor/twin-ops.ts; tolerance 1e-5 of the largest element
// Source     Shazeer, arXiv 2002.05202
@group(0) @binding(0) var<storage, read> gate: array<f32>;
@group(0) @binding(1) var<storage, read> up: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

// 1 / (1 + e^-x), without a large exponent on either side.
fn sigmoid(x: f32) -> f32 {
  let e = exp(-abs(x));
  return select(e, 1.0, x >= 0.0) / (1.0 + e);
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let start = (group.x + group.y * GRID_X) * 1024u + thread;
  for (var i = start; i < min(start + 1024u, COUNT); i += 256u) {
    let g = gate[i];
    out[i] = g * sigmoid(g) * up[i];
  }
}
