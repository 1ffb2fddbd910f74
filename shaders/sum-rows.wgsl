// sumRows: out[n] = Σ_m x[m,n]. A workgroup owns 32 columns: 8 invocations walk the rows of each, m ascending within each,
// and are summed in order; neighbouring invocations read neighbouring columns. No atomics.
//
// Bindings   0 x [M,N]   1 out [N]
// Constants  M N; GRID_X workgroups in a grid row
// Dispatch   ceil(N/32) workgroups of 256, folded to rows of GRID_X
// Twin       sumRows in tensor/twin-ops.ts; tolerance 1e-5 of the largest element
// Source     the definition
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;

var<workgroup> parts: array<f32, 256>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let n = (group.x + group.y * GRID_X) * 32u + thread % 32u;
  var part = 0.0;
  if (n < N) {
    for (var m = thread / 32u; m < M; m += 8u) {
      part += x[m * N + n];
    }
  }
  parts[thread] = part;
  workgroupBarrier();
  if (thread < 32u && n < N) {
    var sum = 0.0;
    for (var i = thread; i < 256u; i += 32u) {
      sum += parts[i];
    }
    out[n] = sum;
  }
}
