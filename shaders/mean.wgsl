// mean: out[0] = Σ x / COUNT, in one workgroup and a fixed order.
//
// Bindings   0 x [COUNT]   1 out [1]
// Constants  COUNT
// Dispatch   1 workgroup of 256
// Twin       mean in tensor/twin-ops.ts; tolerance 1e-5
// Source     the definition
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;

var<workgroup> parts: array<f32, 256>;
var<workgroup> folded: array<f32, 16>;

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) thread: u32) {
  var part = 0.0;
  for (var i = thread; i < COUNT; i += 256u) {
    part += x[i];
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
    out[0] = all / f32(COUNT);
  }
}
