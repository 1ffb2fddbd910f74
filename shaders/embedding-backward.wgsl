// embeddingBackward: dtable[v,c] = (add[v,c]) + Σ dout[n,c] over the rows n that hold token v, n ascending. One invocation
// owns one element and walks its token's run of sorted rows: no atomics, the same bits every time. A table that one
// binding cannot span comes in several dispatches: one makes its V rows from FIRST on.
//
// Bindings   0 dout [N,C]   1 order [N] u32   2 offsets [V+1] u32, of the whole table   3 add [V,C], unused if !ADD   4 dtable [V,C]
// Constants  V C; FIRST row of the window; ADD; GRID_X workgroups in a grid row
// Dispatch   ceil(V·C / 256) workgroups of 256, folded to rows of GRID_X
// Twin       embeddingBackward in tensor/twin-ops.ts; tolerance 1e-5 of the largest element
// Source     sorted segments as in llm.c, encoder_backward (bucketed)
@group(0) @binding(0) var<storage, read> dout: array<f32>;
@group(0) @binding(1) var<storage, read> order: array<u32>;
@group(0) @binding(2) var<storage, read> offsets: array<u32>;
@group(0) @binding(3) var<storage, read> add: array<f32>;
@group(0) @binding(4) var<storage, read_write> dtable: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let i = (group.x + group.y * GRID_X) * 256u + thread;
  if (i >= V * C) {
    return;
  }
  let v = i / C;
  let c = i % C;
  var sum = 0.0;
  if (ADD) {
    sum = add[i];
  }
  let end = offsets[FIRST + v + 1u];
  for (var j = offsets[FIRST + v]; j < end; j++) {
    sum += dout[order[j] * C + c];
  }
  dtable[i] = sum;
}
