// matmul, last of two dispatches where the sum over k was cut: out = Σ partials (+ add) (+ bias), always in the same order, so
// that a run repeats to the bit. One invocation owns one element.
//
// Bindings   0 partials [PARTS,COUNT]   1 add [COUNT], unused if !ADD   2 out [COUNT]   3 bias [N], unused if !BIAS
// Constants  COUNT elements of the product; N of a row; PARTS; ADD BIAS; GRID_X workgroups in a grid row
// Dispatch   ceil(COUNT / 64) workgroups of 64, folded to rows of GRID_X
// Twin       matmul in tensor/twin-ops.ts; tolerance 1e-5 of the largest element
// Source     split-K as in TensorFlow.js (matmul_splitK_webgpu.ts), which adds up with atomics in any order
@group(0) @binding(0) var<storage, read> partials: array<f32>;
@group(0) @binding(1) var<storage, read> add: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let i = (group.x + group.y * GRID_X) * 64u + thread;
  if (i >= COUNT) {
    return;
  }
  var sum = 0.0;
  for (var part = 0u; part < PARTS; part++) {
    sum += partials[part * COUNT + i];
  }
  put(i, i % N, sum);
}
