// norm, first of two dispatches: partials[FIRST + g] = Σ x² over what workgroup g walks, in a fixed order. Large tensors
// are bound window by window, a dispatch each, FIRST counting on.
//
// Bindings   0 x [COUNT]   1 partials [at least FIRST + GROUPS]
// Constants  COUNT; GROUPS workgroups; FIRST
// Dispatch   GROUPS (at most 256) workgroups of 256
// Twin       norm in tensor/twin-ops.ts; tolerance 1e-5
// Source     the definition; two stages because WGSL has no f32 atomics
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> partials: array<f32>;

var<workgroup> parts: array<f32, 256>;
var<workgroup> folded: array<f32, 16>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  var part = 0.0;
  for (var i = group.x * 256u + thread; i < COUNT; i += GROUPS * 256u) {
    part += x[i] * x[i];
  }
  parts[thread] = part;
  workgroupBarrier();
  if (thread < 16u) {
    var sum = 0.0;
    for (var i = 0u; i < 16u; i++) {
      sum += parts[thread * 16u + i];
    }
    folded[thread] = sum;
  }
  workgroupBarrier();
  if (thread == 0u) {
    var all = 0.0;
    for (var i = 0u; i < 16u; i++) {
      all += folded[i];
    }
    partials[FIRST + group.x] = all;
  }
}
