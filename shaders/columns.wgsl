// columns: copies a block of columns between two matrices of ROWS rows: out[r, j] = x[r, j] for WIDTH columns j. Carries
// parts of operands and results of a product whose matrices are cut, because one binding cannot span them (gpu/split.ts).
//
// Bindings   0 x, rows X apart, the block from element X0 on   1 out, rows Y apart, from Y0 on
// Constants  ROWS WIDTH; X0 X Y0 Y; GRID_X workgroups in a grid row
// Dispatch   ceil(ROWS·WIDTH / 256) workgroups of 256, folded to rows of GRID_X
// Twin       none of its own: matmul in tensor/twin-ops.ts does not cut; tolerance 0: a copy
// Source     the definition
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let i = (group.x + group.y * GRID_X) * 256u + thread;
  if (i >= ROWS * WIDTH) {
    return;
  }
  let r = i / WIDTH;
  let j = i % WIDTH;
  out[Y0 + r * Y + j] = x[X0 + r * X + j];
}
