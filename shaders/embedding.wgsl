// embedding: out[n,c] = table[tokens[n], c]; one invocation owns one element. A table that one binding cannot span comes in
// several dispatches: one holds its V rows from FIRST on and leaves alone what other rows make.
//
// Bindings   0 table [V,C]   1 tokens [N] u32, each below the table's rows (the host checks)   2 out [N,C]
// Constants  N C V; FIRST row of the window; GRID_X workgroups in a grid row
// Dispatch   ceil(N·C / 256) workgroups of 256, folded to rows of GRID_X
// Twin       embedding in tensor/twin-ops.ts; tolerance 0: a copy
// Source     the definition
@group(0) @binding(0) var<storage, read> table: array<f32>;
@group(0) @binding(1) var<storage, read> tokens: array<u32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let i = (group.x + group.y * GRID_X) * 256u + thread;
  if (i >= N * C) {
    return;
  }
  let v = tokens[i / C];
  if (v >= FIRST && v - FIRST < V) {
    out[i] = table[(v - FIRST) * C + i % C];
  }
}
