// matmul, the end of every rung: a sum is finished and stored. A rung calls `put` for each value of out, and its text follows
// this one (`ending` in gpu/matmul.ts). A Value is f32 or vec4<f32> (`inValues` in gpu/shader.ts).
//
// Bindings   add, out [M,N] and bias [N] of the rung, all in Values
// Constants  ADD BIAS of the rung
// Dispatch   none of its own
// Twin       matmul in tensor/twin-ops.ts; tolerance 1e-5 of the largest element
// Source     the definition

// What a fused op does with value i of out once it is written; nothing here (gpu/merge.ts).
fn stored(i: u32) {
}
// Ends the sum of value i of out, which is value n of its row.
fn put(i: u32, n: u32, sum: Value) {
  var value = sum;
  if (ADD) {
    value += add[i];
  }
  if (BIAS) {
    value += bias[n];
  }
  out[i] = value;
  stored(i);
}
