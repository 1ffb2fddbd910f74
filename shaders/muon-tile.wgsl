// muon, what the kernels of a turn's products share: where the matrices lie, and how a sum ends. For many matrices M [R,C] in one
// dispatch; R and C are multiples of 4. W is M, or Mᵀ where R > C, and S the shorter side; nothing is transposed in memory. A and
// `mixed` are symmetric, so that mixed·W lies in memory as mixed·M where M is wide, and as M·mixed where it is tall.
//   GRAM    out [S,S]: A = W·Wᵀ         from w; blocks below the diagonal are copies of those above
//   MIXED   out [S,S]: aI + bA + cA·A   from square, which is A; the same
//   else    out [R,C]: mixed·W          from square, which is mixed, and w. Lines marked $a store it; lines marked $u, in the
//           last turn, change the parameters in its place: out −= lr·(0.2·√max(R,C)·mixed·W + wd·out)
// A workgroup owns a tile of 32 × 32, an invocation 4 × 4 of it. A kernel's text follows this one (gpu/muon.ts).
//
// Bindings   0 square: window of [Σ S²], unused if GRAM   1 w: window of P, unused if MIXED   2 out: window of either or of
//            params   3 places [MATRICES,WORDS], as `tableOf` in gpu/muon.ts writes them
//            4 hyper [4]: lr, μ, wd, clip, in the last turn only
// Constants  GRAM MIXED, not both; POLYNOMIAL a, b, c; MATRICES; WORDS of a matrix in places; GRID_X
// Dispatch   a workgroup of 64 for each tile of every matrix's result, folded to rows of GRID_X
// Twin       muon in tensor/twin-ops.ts; tolerance 1e-5 of the largest element of normal numbers. What f32 has made of a tiny
//            singular value grows by 3.4445^5 = 485 in five turns
// Source     Jordan et al., kellerjordan.github.io/posts/muon; 0.2·√max: Liu et al., arXiv 2502.16982
@group(0) @binding(0) var<storage, read> square: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> w: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> places: array<u32>;
@group(0) @binding(4) var<storage, read> hyper: array<f32>; // $u

const SYMMETRIC = GRAM || MIXED;

// A matrix in what is bound: its first element, and its shape.
struct Place {
  first: u32,
  height: u32,
  width: u32,
}
// A matrix and its square, which of them is computed, and the first row and column of the tile in that.
struct Tile {
  matrix: Place,
  even: Place,
  result: Place,
  r: u32,
  c: u32,
}

// Column i: elements [r + i, c … c + 3].
fn square_block(place: Place, r: u32, c: u32) -> mat4x4<f32> {
  let i = (place.first + r * place.width + c) / 4u;
  let d = place.width / 4u;
  return mat4x4<f32>(square[i], square[i + d], square[i + 2u * d], square[i + 3u * d]);
}
fn put(place: Place, i: u32, value: vec4<f32>) {
  out[i] = value; // $a
  let stretch = 0.2 * sqrt(f32(max(place.height, place.width))); // $u
  out[i] -= hyper[0] * (stretch * value + hyper[2] * out[i]); // $u
}
fn store(place: Place, r: u32, c: u32, block: mat4x4<f32>) {
  let i = (place.first + r * place.width + c) / 4u;
  let d = place.width / 4u;
  put(place, i, block[0]);
  put(place, i + d, block[1]);
  put(place, i + 2u * d, block[2]);
  put(place, i + 3u * d, block[3]);
}

// Where in places the matrix is told that has tile `number`: the last whose own tiles, counted in `word`, begin at it or before.
fn matrix_of(number: u32, word: u32) -> u32 {
  var low = 0u;
  var high = MATRICES;
  while (high - low > 1u) {
    let middle = (low + high) / 2u;
    if (places[middle * WORDS + word] <= number) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low * WORDS;
}
fn tile_of(number: u32) -> Tile {
  let word = select(1u, 0u, SYMMETRIC);
  let at = matrix_of(number, word);
  let matrix = Place(places[at + 2u], places[at + 4u], places[at + 5u]);
  let side = min(matrix.height, matrix.width);
  let even = Place(places[at + 3u], side, side);
  var result = matrix;
  if (SYMMETRIC) {
    result = even;
  }
  let tile = number - places[at + word];
  let across = (result.width + 31u) / 32u;
  return Tile(matrix, even, result, tile / across * 32u, tile % across * 32u);
}

// Ends the sums of elements [r … r + 3, c … c + 3] of the result; column i of the block is row r + i.
fn finish(tile: Tile, r: u32, c: u32, block: mat4x4<f32>) {
  var sums = block;
  if (MIXED) {
    sums = POLYNOMIAL.z * sums + POLYNOMIAL.y * square_block(tile.even, r, c);
    if (r == c) {
      sums[0].x += POLYNOMIAL.x;
      sums[1].y += POLYNOMIAL.x;
      sums[2].z += POLYNOMIAL.x;
      sums[3].w += POLYNOMIAL.x;
    }
  }
  store(tile.result, r, c, sums);
  if (SYMMETRIC && r < c) {
    store(tile.result, c, r, transpose(sums));
  }
}
