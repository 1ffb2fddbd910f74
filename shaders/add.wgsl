// add: out = a + b; one invocation owns 4 elements, 256 apart.
//
// Bindings   0 a [COUNT]   1 b [COUNT]   2 out [COUNT]
// Constants  COUNT; GRID_X workgroups in a grid row
// Dispatch   ceil(COUNT / 1024) workgroups of 256, folded to rows of GRID_X
// Twin       add in tensor/twin-ops.ts; tolerance 1e-6 of the largest element
// Source     the definition
@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let start = (group.x + group.y * GRID_X) * 1024u + thread;
  for (var i = start; i < min(start + 1024u, COUNT); i += 256u) {
    out[i] = a[i] + b[i];
  }
}
