// pack: what is sent of each chunk of 4,096 elements, as bits in a slot of SLOT words (tensor/slots.ts). One workgroup has one
// chunk, one invocation 16 neighbours of it. Bit patterns without sign are ordered like the magnitudes: the smallest one kept is
// found two bits at a time, from the highest down, by counting. Sums are atomic integers, so no order shows. The bits of the residual
// are read as u32, because WGSL lets a compiler take it that nothing is infinite.
//
// Bindings   0 residual [COUNT], f32   1 slots [ceil(COUNT / 4096), SLOT]
// Constants  COUNT; KEEP entries of a chunk at most; BITS of a value, 1 to 4; SLOT; GRID_X
// Dispatch   ceil(COUNT / 4096) workgroups of 256, folded to rows of GRID_X
// Twin       pack in tensor/twin-pack.ts; tolerance 0: every bit is defined
// Source     update/pack.ts and tensor/magnitude.ts; the recipe is SparseLoCo's (Sarfi et al., 2025)
@group(0) @binding(0) var<storage, read> residual: array<u32>;
@group(0) @binding(1) var<storage, read_write> slots: array<u32>;

const CHUNK = 4096u;
const OWN = 16u;
const NOT_FINITE = 0xffffffffu;
const RICE_MAX = 12u;
// As in tensor/magnitude.ts: classes of magnitudes in an octave, the smallest and the largest, and octaves searched.
const CLASS_SHIFT = 19u;
const CLASSES = 16;
const CLASS_MIN = 16;
const CLASS_MAX = 4079;
const OCTAVES = 10;
const SEARCHED = 160;
const STEP_MAX = 8;
// The highest level.
const TOP = i32((1u << (BITS - 1u)) - 1u);

// Two bits of the smallest pattern kept are found in a step: how many patterns reach each of the three tried.
const STEPS = 16u;
var<workgroup> reach: array<atomic<u32>, 3u * STEPS>;
var<workgroup> above: atomic<u32>;
var<workgroup> flaws: atomic<u32>;
var<workgroup> ties: array<u32, 256>;
// Which of its 16 each invocation keeps, and the bits that these take.
var<workgroup> masks: array<u32, 256>;
var<workgroup> widths: array<u32, 256>;
// The highest class; how many values each class has that is searched; of those below each, how many and their sum.
var<workgroup> highest: atomic<i32>;
var<workgroup> numbers: array<atomic<i32>, SEARCHED>;
var<workgroup> numbers_below: array<i32, SEARCHED + 1>;
var<workgroup> sums_below: array<i32, SEARCHED + 1>;
// The least error found, and the first try that has it.
var<workgroup> least_error: atomic<u32>;
var<workgroup> best_try: atomic<u32>;
// What the next larger Rice parameter saves.
var<workgroup> saved: array<atomic<u32>, RICE_MAX>;
var<workgroup> bits: array<atomic<u32>, SLOT>;

// The width of the highest one.
fn width_of(x: u32) -> u32 {
  return 32u - countLeadingZeros(x);
}

fn class_of(pattern: u32) -> i32 {
  return min(CLASS_MAX, i32((pattern + (1u << (CLASS_SHIFT - 1u))) >> CLASS_SHIFT));
}

// A magnitude of a class in units; both count from the lowest class searched.
fn units_of(at: i32) -> i32 {
  return ((CLASSES + (at & (CLASSES - 1))) << 5u) >> u32(min(31, OCTAVES - (at >> 4u)));
}

// What the values of the classes from `start` up to `end` add to the error when they are sent as `level`, but for their squares.
fn error_of(level: i32, start: i32, end: i32) -> i32 {
  let n = numbers_below[end] - numbers_below[start];
  let sum = sums_below[end] - sums_below[start];
  let units = units_of(level);
  return units * (n * units - 2 * sum);
}

// ORs the low `count` bits (1 to 17) of `value` into the slot.
fn put(at: u32, value: u32, count: u32) {
  let shift = at & 31u;
  atomicOr(&bits[1u + (at >> 5u)], value << shift);
  if (shift + count > 32u) {
    atomicOr(&bits[2u + (at >> 5u)], value >> (32u - shift));
  }
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let chunk = group.x + group.y * GRID_X;
  if (chunk * CHUNK >= COUNT) {
    return;
  }
  let length = min(CHUNK, COUNT - chunk * CHUNK);
  var own: array<u32, OWN>;
  var negative = 0u;
  var flaw = false;
  for (var i = 0u; i < OWN; i++) {
    let index = thread * OWN + i;
    var pattern = 0u;
    if (index < length) {
      let raw = residual[chunk * CHUNK + index];
      negative |= (raw >> 31u) << i;
      pattern = raw & 0x7fffffffu;
      flaw = flaw || pattern >= 0x7f800000u;
    }
    own[i] = select(0u, pattern, pattern > 0x7fffffu);
  }
  if (flaw) {
    atomicStore(&flaws, 1u);
  }
  // The largest pattern that KEEP reach, or 0 where fewer can be sent.
  var least = 0u;
  for (var step = 0u; step < STEPS; step++) {
    let shift = 2u * (STEPS - 1u - step);
    var n = vec3(0u);
    for (var i = 0u; i < OWN; i++) {
      n += select(vec3(0u), vec3(1u), vec3(own[i]) >= (vec3(least) | (vec3(1u, 2u, 3u) << vec3(shift))));
    }
    for (var digit = 0u; digit < 3u && n[digit] > 0u; digit++) {
      atomicAdd(&reach[3u * step + digit], n[digit]);
    }
    workgroupBarrier();
    var found = 0u;
    for (var digit = 0u; digit < 3u; digit++) {
      found += select(0u, 1u, atomicLoad(&reach[3u * step + digit]) >= KEEP);
    }
    least |= found << shift;
  }
  var more = 0u;
  var equal = 0u;
  for (var i = 0u; i < OWN; i++) {
    more += select(0u, 1u, own[i] > least);
    equal += select(0u, 1u, own[i] == least);
  }
  ties[thread] = equal;
  if (more > 0u) {
    atomicAdd(&above, more);
  }
  workgroupBarrier();

  // Of what equals it, the first ones.
  var left = 0u;
  var count = atomicLoad(&above);
  if (least > 0u) {
    left = KEEP - count;
    count = KEEP;
    for (var i = 0u; i < thread; i++) {
      left -= min(left, ties[i]);
    }
  }
  var mask = 0u;
  for (var i = 0u; i < OWN; i++) {
    let pattern = own[i];
    var kept = pattern > least;
    if (pattern == least && left > 0u) {
      kept = true;
      left -= 1u;
    }
    if (kept) {
      mask |= 1u << i;
      atomicMax(&highest, class_of(pattern));
    }
  }
  masks[thread] = mask;
  workgroupBarrier();

  // The lowest class searched; others count from it.
  let top_class = atomicLoad(&highest);
  let base = top_class - top_class % CLASSES + CLASSES - SEARCHED;
  for (var i = 0u; i < OWN; i++) {
    if ((mask & (1u << i)) != 0u) {
      atomicAdd(&numbers[max(0, class_of(own[i]) - base)], 1);
    }
  }

  // One more than the index kept before this invocation's first.
  var before = 0u;
  for (var i = thread; i > 0u && before == 0u; i--) {
    let other = masks[i - 1u];
    if (other != 0u) {
      before = (i - 1u) * OWN + width_of(other);
    }
  }
  for (var rice = 0u; rice < RICE_MAX; rice++) {
    var from_index = before;
    var sum = 0u;
    for (var i = 0u; i < OWN; i++) {
      if ((mask & (1u << i)) != 0u) {
        let index = thread * OWN + i;
        sum += (((index - from_index) >> rice) + 1u) >> 1u;
        from_index = index + 1u;
      }
    }
    if (sum > 0u) {
      atomicAdd(&saved[rice], sum);
    }
  }
  workgroupBarrier();

  // Each class sums up what is below it; invocation SEARCHED what is below the end.
  if (i32(thread) <= SEARCHED) {
    var n = 0;
    var sum = 0;
    for (var at = 0; at < i32(thread); at++) {
      let more = atomicLoad(&numbers[at]);
      n += more;
      sum += more * units_of(at);
    }
    numbers_below[thread] = n;
    sums_below[thread] = sum;
  }
  if (thread == 0u) {
    atomicStore(&least_error, 0xffffffffu);
    atomicStore(&best_try, 0xffffffffu);
  }
  workgroupBarrier();

  // createLevelSearch in tensor/magnitude.ts. Each invocation tries one first class with every step; a try's number is its place
  // in the order there. Errors are modulo 2^32, below which they are.
  let end = top_class - base + 1;
  var lowest = 0;
  var squares = 0;
  for (var at = 0; at < end; at++) {
    let n = atomicLoad(&numbers[at]);
    lowest += select(0, 1, numbers_below[at + 1] == 0);
    squares += n * units_of(at) * units_of(at);
  }
  let level_max = min(end + CLASSES - 2, CLASS_MAX - base);
  var own_error = 0xffffffffu;
  var own_try = 0xffffffffu;
  if (lowest + i32(thread) < end) {
    own_error = u32(squares + error_of(lowest + i32(thread), 0, end));
    own_try = thread;
  }
  for (var step = select(STEP_MAX, 0, TOP == 0); step > 0; step--) {
    let wide = 1 << u32(step - 1);
    let half = wide >> 1u;
    let first = lowest - wide + half + 1 + i32(thread);
    let top = min(TOP, (end - 1 - first + half) >> u32(step - 1));
    if (first < end - wide + half && first + base >= CLASS_MIN && first + top * wide <= level_max) {
      var error = squares;
      var start = 0;
      for (var i = 0; i <= top; i++) {
        let stop = select(first + (i + 1) * wide - half, end, i == top);
        error += error_of(first + i * wide, start, stop);
        start = stop;
      }
      if (u32(error) < own_error) {
        own_error = u32(error);
        own_try = u32(STEP_MAX + 1 - step) * 256u + thread;
      }
    }
  }
  atomicMin(&least_error, own_error);
  workgroupBarrier();
  if (own_error == atomicLoad(&least_error)) {
    atomicMin(&best_try, own_try);
  }
  workgroupBarrier();
  var first = lowest + i32(atomicLoad(&best_try) & 255u);
  var step = 0u;
  if (count > 0u && atomicLoad(&best_try) > 255u) {
    step = u32(STEP_MAX + 1) - (atomicLoad(&best_try) >> 8u);
    let wide = 1 << (step - 1u);
    first += 1 - wide + (wide >> 1u);
    // The same levels with the largest step that reaches all that are used.
    var used = 0u;
    for (var level = 1; level <= TOP; level++) {
      let start = first + level * wide - (wide >> 1u);
      let stop = select(min(end, start + wide), end, level == TOP);
      if (start < end && numbers_below[stop] != numbers_below[start]) {
        used |= u32(level);
      }
    }
    step += countTrailingZeros(used);
  }
  first += base;
  let half = (1 << max(step, 1u)) >> 2u;

  let whole = count == length;
  var rice = 0u;
  while (rice < RICE_MAX && atomicLoad(&saved[min(rice, RICE_MAX - 1u)]) > count) {
    rice++;
  }
  let value_bits = select(1u, BITS, step > 0u);
  let header_bits = select(20u, 16u, whole);
  var width = 0u;
  var from_index = before;
  for (var i = 0u; i < OWN; i++) {
    if ((mask & (1u << i)) != 0u) {
      let index = thread * OWN + i;
      width += value_bits + select(((index - from_index) >> rice) + 1u + rice, 0u, whole);
      from_index = index + 1u;
    }
  }
  widths[thread] = width;
  workgroupBarrier();

  var at = header_bits;
  for (var i = 0u; i < thread; i++) {
    at += widths[i];
  }
  from_index = before;
  for (var i = 0u; i < OWN; i++) {
    if ((mask & (1u << i)) != 0u) {
      let index = thread * OWN + i;
      let gap = index - from_index;
      from_index = index + 1u;
      // What follows the zeros of the gap: a one, its low bits, the sign, the level.
      var value = 0u;
      var taken = 0u;
      if (!whole) {
        at += gap >> rice;
        value = 1u | ((gap & ((1u << rice) - 1u)) << 1u);
        taken = 1u + rice;
      }
      value |= ((negative >> i) & 1u) << taken;
      if (step > 0u) {
        value |= u32(clamp((class_of(own[i]) - first + half) >> (step - 1u), 0, TOP)) << (taken + 1u);
      }
      put(at, value, taken + value_bits);
      at += taken + value_bits;
    }
  }
  if (thread == 255u && count > 0u) {
    let levels = u32(first) | (step << 12u);
    if (whole) {
      put(0u, levels, 16u);
    } else {
      put(0u, rice | (levels << 4u), 20u);
    }
    atomicStore(&bits[0], count | (at << 16u));
  }
  workgroupBarrier();

  let flawed = atomicLoad(&flaws) != 0u;
  for (var i = thread; i < SLOT; i += 256u) {
    slots[chunk * SLOT + i] = select(atomicLoad(&bits[i]), select(0u, NOT_FINITE, i == 0u), flawed);
  }
}
