// muon, the products of a turn from workgroup memory: a workgroup stages STEP values of k of both factors for its tile, so that
// each of them is read from memory once for 32 rows or columns, and neighbours read neighbouring quads whichever way a matrix
// lies. For real GPUs. What is computed is told in muon-tile, whose text goes before this one.
//
// Bindings   those of muon-tile
// Constants  those of muon-tile
// Dispatch   as muon-tile says; 4,608 bytes of workgroup memory
// Twin       muon in tensor/twin-ops.ts; tolerance as for muon-tile
// Source     as for muon-tile; S. Boehm, "How to optimize a CUDA matmul kernel" (2022), kernels 3 to 5; tiles as in matmul

const STEP = 16u;
// A row of a tile is one quad longer than its 32 values, so that rows begin in different banks.
const PITCH = 9u;

// Four neighbouring rows of the result at each k, and behind them four neighbouring columns.
var<workgroup> staged: array<vec4<f32>, 2u * STEP * PITCH>;

// One side of a product: where it lies, in square or in w, and whether a row of it is what a sum runs along.
struct Factor {
  place: Place,
  in_square: bool,
  along_row: bool,
}

fn quad_of(factor: Factor, r: u32, c: u32) -> vec4<f32> {
  if (r >= factor.place.height || c >= factor.place.width) {
    return vec4<f32>();
  }
  let i = (factor.place.first + r * factor.place.width + c) / 4u;
  if (factor.in_square) {
    return square[i];
  }
  return w[i];
}
// Stages 32 rows or columns of the result from `first` on, at `start`. Quads along k are turned, four at a time.
fn stage(factor: Factor, first: u32, k0: u32, start: u32, thread: u32) {
  if (factor.along_row) {
    if (thread < 2u * STEP) {
      let k = thread % (STEP / 4u) * 4u;
      let quad = thread / (STEP / 4u);
      let r = first + quad * 4u;
      let c = k0 + k;
      let rows = mat4x4<f32>(quad_of(factor, r, c), quad_of(factor, r + 1u, c), quad_of(factor, r + 2u, c), quad_of(factor, r + 3u, c));
      let turned = transpose(rows);
      let at = start + k * PITCH + quad;
      staged[at] = turned[0];
      staged[at + PITCH] = turned[1];
      staged[at + 2u * PITCH] = turned[2];
      staged[at + 3u * PITCH] = turned[3];
    }
  } else {
    for (var i = thread; i < 8u * STEP; i += 64u) {
      staged[start + i / 8u * PITCH + i % 8u] = quad_of(factor, k0 + i / 8u, first + i % 8u * 4u);
    }
  }
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let tile = tile_of(group.x + group.y * GRID_X);
  // All invocations of a workgroup go together.
  if (tile.r >= tile.result.height || (SYMMETRIC && tile.c < tile.r)) {
    return;
  }
  let matrix = tile.matrix;
  let wide = matrix.height <= matrix.width;
  // A square is its own transpose, so that its rows serve for columns.
  let square_factor = Factor(tile.even, true, false);
  var rows = square_factor;
  var columns = square_factor;
  var length = tile.even.width;
  if (GRAM) {
    rows = Factor(matrix, false, wide);
    columns = rows;
    length = max(matrix.height, matrix.width);
  } else if (!MIXED && wide) {
    columns = Factor(matrix, false, false);
  } else if (!MIXED) {
    rows = Factor(matrix, false, true);
  }
  var sums = mat4x4<f32>();
  for (var k0 = 0u; k0 < length; k0 += STEP) {
    workgroupBarrier();
    stage(rows, tile.r, k0, 0u, thread);
    // Where half of the invocations stage a factor, the others stage the other one.
    stage(columns, tile.c, k0, STEP * PITCH, (thread + 32u) % 64u);
    workgroupBarrier();
    for (var k = 0u; k < STEP; k++) {
      let p = staged[k * PITCH + thread / 8u];
      let q = staged[(STEP + k) * PITCH + thread % 8u];
      sums += mat4x4<f32>(p.x * q, p.y * q, p.z * q, p.w * q);
    }
  }
  let r = tile.r + thread / 8u * 4u;
  let c = tile.c + thread % 8u * 4u;
  if (r < tile.result.height && c < tile.result.width && !(SYMMETRIC && c < r)) {
    finish(tile, r, c, sums);
  }
}
