// muon, the products of a turn for matrices of any shape: what muon-tile tells, an element at a time. An invocation owns
// 16 of the 32 × 32 elements of a tile.
//
// Bindings   as in muon-tile, in single elements: 0 square   1 w   2 out   3 places   4 hyper, in the last turn only
// Constants  GRAM MIXED, not both; POLYNOMIAL a, b, c; MATRICES; WORDS of a matrix in places; GRID_X
// Dispatch   a workgroup of 64 for each tile of every matrix's result, folded to rows of GRID_X
// Twin       muon in tensor/twin-ops.ts; tolerance as for muon-tile
// Source     as for muon-tile
@group(0) @binding(0) var<storage, read> square: array<f32>;
@group(0) @binding(1) var<storage, read> w: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
@group(0) @binding(3) var<storage, read> places: array<u32>;
@group(0) @binding(4) var<storage, read> hyper: array<f32>; // $u

const SYMMETRIC = GRAM || MIXED;

fn put(i: u32, value: f32, longer: u32) {
  out[i] = value; // $a
  let stretch = 0.2 * sqrt(f32(longer)); // $u
  out[i] -= hyper[0] * (stretch * value + hyper[2] * out[i]); // $u
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let number = group.x + group.y * GRID_X;
  let word = select(1u, 0u, SYMMETRIC);
  // The last matrix whose tiles begin at this one or before.
  var at = 0u;
  for (var matrix = 1u; matrix < MATRICES; matrix++) {
    if (places[matrix * WORDS + word] <= number) {
      at = matrix * WORDS;
    }
  }
  let first = places[at + 2u];
  let even = places[at + 3u];
  let height = places[at + 4u];
  let width = places[at + 5u];
  let wide = height <= width;
  let side = min(height, width);
  let longer = max(height, width);
  let rows = select(height, side, SYMMETRIC);
  let columns = select(width, side, SYMMETRIC);
  let tile = number - places[at + word];
  let across = (columns + 31u) / 32u;
  let c = tile % across * 32u + thread % 32u;
  for (var i = 0u; i < 16u; i++) {
    let r = tile / across * 32u + thread / 32u + 2u * i;
    if (r >= rows || c >= columns) {
      return;
    }
    var sum = 0.0;
    for (var k = 0u; k < select(side, longer, GRAM); k++) {
      if (MIXED) {
        sum += square[even + r * side + k] * square[even + k * side + c];
      } else if (GRAM && wide) {
        sum += w[first + r * width + k] * w[first + c * width + k];
      } else if (GRAM) {
        sum += w[first + k * width + r] * w[first + k * width + c];
      } else if (wide) {
        sum += square[even + r * side + k] * w[first + k * width + c];
      } else {
        sum += w[first + r * width + k] * square[even + k * side + c];
      }
    }
    if (MIXED) {
      sum = POLYNOMIAL.z * sum + POLYNOMIAL.y * square[even + r * side + c] + select(0.0, POLYNOMIAL.x, r == c);
    }
    put(select(first, even, SYMMETRIC) + r * columns + c, sum, longer);
  }
}
