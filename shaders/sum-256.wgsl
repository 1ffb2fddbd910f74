// The sum of what the 256 invocations of a workgroup have, in a fixed order; each of them gets it. A kernel's text follows this
// one and calls `sum_256` where all invocations do.
//
// Bindings   none
// Constants  none
// Dispatch   none of its own
// Twin       mean in tensor/twin-ops.ts; tolerance 1e-5
// Source     the definition
var<workgroup> parts: array<f32, 256>;
var<workgroup> folded: array<f32, 16>;

fn sum_256(thread: u32, part: f32) -> f32 {
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
  var all = 0.0;
  for (var i = 0u; i < 16u; i++) {
    all += folded[i];
  }
  return all;
}
