// norm, first of two dispatches: partials[FIRST + i] = Σ x² over what invocation i walks, in a fixed order. No barriers: the
// second dispatch adds up what is left. Large tensors are bound window by window, a dispatch each, FIRST counting on.
//
// Bindings   0 x [COUNT]   1 partials [at least FIRST + OWNERS]
// Constants  COUNT; OWNERS invocations that sum, a multiple of 64; FIRST; GRID_X
// Dispatch   OWNERS / 64 workgroups of 64
// Twin       norm in tensor/twin-ops.ts; tolerance 1e-5
// Source     the definition; two stages because WGSL has no f32 atomics
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> partials: array<f32>;

const TURNS = (COUNT + OWNERS - 1u) / OWNERS;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let owner = (group.x + group.y * GRID_X) * 64u + thread;
  if (owner >= OWNERS) {
    return;
  }
  var sum = 0.0;
  for (var turn = 0u; turn < TURNS; turn++) {
    let i = turn * OWNERS + owner;
    let value = select(0.0, x[min(i, COUNT - 1u)], i < COUNT);
    sum += value * value;
  }
  partials[FIRST + owner] = sum;
}
