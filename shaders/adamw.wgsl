// adamw: one step of AdamW with decoupled decay and global-norm clipping, in place. With s = clip > 0 ? min(1, clip / (norm
// + 1e-6)) : 1 and g = grads·s: m = β1·m + (1−β1)·g; v = β2·v + (1−β2)·g²; params −= lr·(m·c1 / (√(v·c2) + eps) + wd·params);
// wd only below DECAY. A Value is f32 or vec4<f32> (`inValues` in gpu/shader.ts); one invocation owns 4
// elements: a vec4, or single ones 256 apart. Large tensors are bound window by window.
//
// Bindings   0 params [COUNT]   1 grads [COUNT]   2 m [COUNT]   3 v [COUNT]   4 norm [1]
//            5 hyper [8]: lr, β1, β2, eps, wd, clip, c1 = 1/(1−β1^t), c2 = 1/(1−β2^t)
// Constants  COUNT values; DECAY values of this window that decay; SPAN values of a workgroup; GRID_X
// Dispatch   ceil(COUNT / SPAN) workgroups of 256, folded to rows of GRID_X
// Twin       adamw in tensor/twin-ops.ts; tolerance 1e-5 of the largest element
// Source     Loshchilov and Hutter, arXiv 1711.05101; PyTorch clip_grad_norm_
@group(0) @binding(0) var<storage, read_write> params: array<Value>;
@group(0) @binding(1) var<storage, read> grads: array<Value>;
@group(0) @binding(2) var<storage, read_write> m: array<Value>;
@group(0) @binding(3) var<storage, read_write> v: array<Value>;
@group(0) @binding(4) var<storage, read> norm: array<f32>;
@group(0) @binding(5) var<storage, read> hyper: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let lr = hyper[0];
  let beta1 = hyper[1];
  let beta2 = hyper[2];
  let eps = hyper[3];
  let clip = hyper[5];
  var scale = 1.0;
  if (clip > 0.0) {
    scale = min(1.0, clip / (norm[0] + 1e-6));
  }
  let start = (group.x + group.y * GRID_X) * SPAN + thread;
  for (var i = start; i < min(start + SPAN, COUNT); i += 256u) {
    let g = grads[i] * scale;
    let m1 = beta1 * m[i] + (1.0 - beta1) * g;
    let v1 = beta2 * v[i] + (1.0 - beta2) * g * g;
    let decay = select(0.0, hyper[4], i < DECAY);
    m[i] = m1;
    v[i] = v1;
    params[i] -= lr * (m1 * hyper[6] / (sqrt(v1 * hyper[7]) + eps) + decay * params[i]);
  }
}
