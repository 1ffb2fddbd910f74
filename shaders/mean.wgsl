// mean: out[0] = Σ x / COUNT, in one workgroup and a fixed order (sum-256).
//
// Bindings   0 x [COUNT]   1 out [1]
// Constants  COUNT
// Dispatch   1 workgroup of 256
// Twin       mean in tensor/twin-ops.ts; tolerance 1e-5
// Source     the definition
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) thread: u32) {
  var part = 0.0;
  for (var i = thread; i < COUNT; i += 256u) {
    part += x[i];
  }
  let all = sum_256(thread, part);
  if (thread == 0u) {
    out[0] = all / f32(COUNT);
  }
}
