// swigluBackward: with s = sigmoid(gate): dgate = dout·up·s·(1 + gate·(1 − s)); dup = dout·gate·s. A Value is
// f32 or vec4<f32> (`inValues` in gpu/shader.ts); one invocation owns 4 elements: a vec4, or single ones 256 apart. A
// product may call `element` for what it has just stored (gpu/merge.ts). All is read before anything is written: dgate may
// be dout.
//
// Bindings   0 gate [COUNT]   1 up [COUNT]   2 dout [COUNT]   3 dgate [COUNT]   4 dup [COUNT]; each [N,F]
// Constants  COUNT values; SPAN values of a workgroup; GRID_X workgroups in a grid row
// Dispatch   ceil(COUNT / SPAN) workgroups of 256, folded to rows of GRID_X
// Twin       swigluBackward in tensor/twin-ops.ts; tolerance 1e-5 of the largest element
// Source     derivative of Shazeer, arXiv 2002.05202
@group(0) @binding(0) var<storage, read> gate: array<Value>;
@group(0) @binding(1) var<storage, read> up: array<Value>;
@group(0) @binding(2) var<storage, read> dout: array<Value>;
@group(0) @binding(3) var<storage, read_write> dgate: array<Value>;
@group(0) @binding(4) var<storage, read_write> dup: array<Value>;

// 1 / (1 + e^-x), without a large exponent on either side.
fn sigmoid(x: Value) -> Value {
  let e = exp(-abs(x));
  return select(e, Value(1.0), x >= Value(0.0)) / (1.0 + e);
}
fn element(i: u32) {
  let g = gate[i];
  let d = dout[i];
  let u = up[i];
  let s = sigmoid(g);
  dup[i] = d * g * s;
  dgate[i] = d * u * s * (1.0 + g * (1.0 - s));
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let start = (group.x + group.y * GRID_X) * SPAN + thread;
  for (var i = start; i < min(start + SPAN, COUNT); i += 256u) {
    element(i);
  }
}
