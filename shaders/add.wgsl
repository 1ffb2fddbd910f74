// add: out = a + b. A Value is f32 or vec4<f32> (`inValues` in gpu/shader.ts); one invocation owns 4
// elements: a vec4, or single ones 256 apart. A product may call `element` for what it has just stored (gpu/merge.ts).
//
// Bindings   0 a [COUNT]   1 b [COUNT]   2 out [COUNT]
// Constants  COUNT values; SPAN values of a workgroup; GRID_X workgroups in a grid row
// Dispatch   ceil(COUNT / SPAN) workgroups of 256, folded to rows of GRID_X
// Twin       add in tensor/twin-ops.ts; tolerance 1e-6 of the largest element
// Source     the definition
@group(0) @binding(0) var<storage, read> a: array<Value>;
@group(0) @binding(1) var<storage, read> b: array<Value>;
@group(0) @binding(2) var<storage, read_write> out: array<Value>;

fn element(i: u32) {
  out[i] = a[i] + b[i];
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let start = (group.x + group.y * GRID_X) * SPAN + thread;
  for (var i = start; i < min(start + SPAN, COUNT); i += 256u) {
    element(i);
  }
}
