// feedback: residual = scale·residual + (base − params), in place. A Value is f32 or vec4<f32> (`inValues` in gpu/shader.ts); one
// invocation owns 4 elements: a vec4, or single ones 256 apart. Large tensors are bound window by window.
//
// Bindings   0 residual [COUNT]   1 base [COUNT]   2 params [COUNT]   3 scale [1]
// Constants  COUNT values; SPAN values of a workgroup; GRID_X
// Dispatch   ceil(COUNT / SPAN) workgroups of 256, folded to rows of GRID_X
// Twin       feedback in tensor/twin-ops.ts; tolerance 1e-5 of the largest element
// Source     Seide et al., 2014; SparseLoCo (Sarfi et al., 2025)
@group(0) @binding(0) var<storage, read_write> residual: array<Value>;
@group(0) @binding(1) var<storage, read> base: array<Value>;
@group(0) @binding(2) var<storage, read> params: array<Value>;
@group(0) @binding(3) var<storage, read> scale: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let start = (group.x + group.y * GRID_X) * SPAN + thread;
  for (var i = start; i < min(start + SPAN, COUNT); i += 256u) {
    residual[i] = scale[0] * residual[i] + (base[i] - params[i]);
  }
}
