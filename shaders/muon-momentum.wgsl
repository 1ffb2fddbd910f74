// muon, first of its dispatches: momentum, and what is made orthogonal, over its norm. For each matrix, with s = clip > 0 ?
// min(1, clip / (norm + 1e-6)) : 1 and g = grads·s: m = μ·m + (1−μ)·g; x = (1−μ)·g + μ·m; grads = x / (√Σx² + 1e-7). A
// workgroup owns a matrix and adds its squares in a fixed order (sum-256); what an invocation divides in the end, it wrote itself. A
// Value is f32 or vec4<f32> (`inValues` in gpu/shader.ts).
//
// Bindings   0 grads   1 m: windows of P, in Values   2 norm [1]   3 hyper [4]: lr, μ, wd, clip
//            4 places [MATRICES,WORDS], as `tableOf` in gpu/muon.ts writes them
// Constants  MATRICES; WORDS of a matrix in places; WIDTH elements of a Value; GRID_X
// Dispatch   MATRICES workgroups of 256, folded to rows of GRID_X
// Twin       muon in tensor/twin-ops.ts; tolerance as for muon-product
// Source     Jordan et al., kellerjordan.github.io/posts/muon; PyTorch clip_grad_norm_
@group(0) @binding(0) var<storage, read_write> grads: array<Value>;
@group(0) @binding(1) var<storage, read_write> m: array<Value>;
@group(0) @binding(2) var<storage, read> norm: array<f32>;
@group(0) @binding(3) var<storage, read> hyper: array<f32>;
@group(0) @binding(4) var<storage, read> places: array<u32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let number = group.x + group.y * GRID_X;
  if (number >= MATRICES) {
    return;
  }
  let start = places[number * WORDS + 2u] / WIDTH;
  let end = start + places[number * WORDS + 4u] * places[number * WORDS + 5u] / WIDTH;
  let mu = hyper[1];
  let clip = hyper[3];
  var scale = 1.0;
  if (clip > 0.0) {
    scale = min(1.0, clip / (norm[0] + 1e-6));
  }
  var squares = Value();
  for (var i = start + thread; i < end; i += 256u) {
    let g = (1.0 - mu) * scale * grads[i];
    let m1 = mu * m[i] + g;
    let x = g + mu * m1;
    m[i] = m1;
    grads[i] = x;
    squares += x * x;
  }
  // The sum of a vec4; a single number counts as four quarters.
  let all = sum_256(thread, dot(vec4<f32>(squares), vec4<f32>(f32(WIDTH) / 4.0)));
  let share = 1.0 / (sqrt(all) + 1e-7);
  for (var i = start + thread; i < end; i += 256u) {
    grads[i] = grads[i] * share;
  }
}
