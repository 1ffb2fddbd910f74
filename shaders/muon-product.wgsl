// muon, the products of a turn of Newton and Schulz's iteration, straight from memory: an invocation reads its operands as quads, four
// terms of the sum at a time. No workgroup memory, no barriers: for software adapters, where that is ordinary memory. What is
// computed is told in muon-tile, whose text goes before this one.
//
// Bindings   those of muon-tile
// Constants  those of muon-tile
// Dispatch   as muon-tile says
// Twin       muon in tensor/twin-ops.ts; tolerance as for muon-tile
// Source     as for muon-tile; blocks as in matmul-blocks

// Column i: elements [r + i, c … c + 3].
fn w_block(place: Place, r: u32, c: u32) -> mat4x4<f32> {
  let i = (place.first + r * place.width + c) / 4u;
  let d = place.width / 4u;
  return mat4x4<f32>(w[i], w[i + d], w[i + 2u * d], w[i + 3u * d]);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let tile = tile_of(group.x + group.y * GRID_X);
  let matrix = tile.matrix;
  let even = tile.even;
  let r = tile.r + thread / 8u * 4u;
  let c = tile.c + thread % 8u * 4u;
  if (r >= tile.result.height || c >= tile.result.width || (SYMMETRIC && c < r)) {
    return;
  }
  // Rows of both factors are columns of their blocks: the rows of left · right are the columns of right · left.
  let wide = matrix.height <= matrix.width;
  let side = even.width;
  let longer = max(matrix.height, matrix.width);
  var sums = mat4x4<f32>();
  if (MIXED) {
    for (var k = 0u; k < side; k += 4u) {
      sums += square_block(even, k, c) * square_block(even, r, k);
    }
  } else if (GRAM && wide) {
    for (var k = 0u; k < longer; k += 4u) {
      sums += transpose(w_block(matrix, c, k)) * w_block(matrix, r, k);
    }
  } else if (GRAM) {
    for (var k = 0u; k < longer; k += 4u) {
      sums += w_block(matrix, k, c) * transpose(w_block(matrix, k, r));
    }
  } else if (wide) {
    for (var k = 0u; k < side; k += 4u) {
      sums += w_block(matrix, k, c) * square_block(even, r, k);
    }
  } else {
    for (var k = 0u; k < side; k += 4u) {
      sums += square_block(even, k, c) * w_block(matrix, r, k);
    }
  }
  finish(tile, r, c, sums);
}
