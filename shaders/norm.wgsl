// norm, second of two dispatches: out[0] = √Σ partials, in one workgroup and a fixed order (sum-256).
//
// Bindings   0 partials [COUNT]   1 out [1]
// Constants  COUNT
// Dispatch   1 workgroup of 256
// Twin       norm in tensor/twin-ops.ts; tolerance 1e-5
// Source     the definition
@group(0) @binding(0) var<storage, read> partials: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) thread: u32) {
  var part = 0.0;
  for (var i = thread; i < COUNT; i += 256u) {
    part += partials[i];
  }
  let all = sum_256(thread, part);
  if (thread == 0u) {
    out[0] = sqrt(all);
  }
}
