// peak: how fast the device multiplies and adds when nothing else is asked of it. Every invocation turns $C chains of four
// numbers with x = x · factor + addend, $R steps in a row, as often as it is told. With factor 1/2 and addend 1/2 all numbers
// arrive at exactly 1, so that a device which skips the work is found out.
//
// Bindings   0 setting [3]: factor, addend, times   1 out [COUNT]: the sum of the invocation's numbers
// Constants  COUNT
// Dispatch   ceil(COUNT / 64) workgroups of 64
// Twin       the sum is 4·$C, exactly; tolerance 0
// Source     the loop of clpeak's single-precision test (github.com/krrishnarraj/clpeak), with several chains side by side
@group(0) @binding(0) var<storage, read> setting: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let i = id.x;
  if (i >= COUNT) {
    return;
  }
  let factor = vec4(setting[0]);
  let addend = vec4(setting[1]);
  let times = u32(setting[2]);
  var x$c = vec4(f32(i), 1.0, 2.0, f32($cu));
  for (var time = 0u; time < times; time++) {
    x$c = x$c * factor + addend; // step $r
  }
  var sum = vec4(0.0);
  sum += x$c;
  out[i] = sum.x + sum.y + sum.z + sum.w;
}
