// pack: what is sent of each chunk of 4,096 elements, as bits in a slot of SLOT words (tensor/slots.ts). One workgroup has one
// chunk, one invocation 16 neighbours of it. Bit patterns without sign are ordered like the magnitudes: the smallest one kept is
// found two bits at a time, from the highest down, by counting. Sums are atomic integers, so no order shows. The bits of the residual
// are read as u32, because WGSL lets a compiler take it that nothing is infinite.
//
// Bindings   0 residual [COUNT], f32   1 slots [ceil(COUNT / 4096), SLOT]
// Constants  COUNT; KEEP entries of a chunk at most; SLOT; GRID_X
// Dispatch   ceil(COUNT / 4096) workgroups of 256, folded to rows of GRID_X
// Twin       pack in tensor/twin-pack.ts; tolerance 0: every bit is defined
// Source     update/pack.ts and tensor/magnitude.ts; the recipe is SparseLoCo's (Sarfi et al., 2025)
@group(0) @binding(0) var<storage, read> residual: array<u32>;
@group(0) @binding(1) var<storage, read_write> slots: array<u32>;

const CHUNK = 4096u;
const OWN = 16u;
const NOT_FINITE = 0xffffffffu;
const RICE_MAX = 12u;
const UNIT_BITS = 16u;
const EXPONENT_MAX = 254u;
// Classes of magnitudes: the dust, then 4 in each of 32 octaves, the last of which is the highest in the chunk.
const CLASSES = 129u;

// Two bits of the smallest pattern kept are found in a step: how many patterns reach each of the three tried.
const STEPS = 16u;
var<workgroup> reach: array<atomic<u32>, 3u * STEPS>;
var<workgroup> above: atomic<u32>;
var<workgroup> flaws: atomic<u32>;
var<workgroup> ties: array<u32, 256>;
// Which of its 16 each invocation keeps, and the bits that these take.
var<workgroup> masks: array<u32, 256>;
var<workgroup> widths: array<u32, 256>;
// Of each class number and sum.
var<workgroup> numbers: array<atomic<u32>, CLASSES>;
var<workgroup> sums: array<atomic<u32>, CLASSES>;
// The highest octave, and that of the dust.
var<workgroup> last: atomic<u32>;
var<workgroup> dust: atomic<u32>;
// What the next larger Rice parameter saves.
var<workgroup> saved: array<atomic<u32>, RICE_MAX>;
// The lower and the upper exponent, and the first class of the upper.
var<workgroup> levels: vec3<u32>;
var<workgroup> bits: array<atomic<u32>, SLOT>;

// The width of the highest one.
fn width_of(x: u32) -> u32 {
  return 32u - countLeadingZeros(x);
}

// The class of a pattern, where the highest octave is `top`; 0 is the dust.
fn class_of(pattern: u32, top: u32) -> u32 {
  let below = top - (pattern >> 23u);
  return select(125u - 4u * below + width_of((pattern >> 20u) & 7u), 0u, below > 31u);
}

// How far the octave of a class is below the highest.
fn below_top(class_number: u32) -> u32 {
  return 31u - (class_number - 1u) / 4u;
}

// The power of two, in bits of a unit of octave `top`, that is nearest to the mean of n values.
fn power_for(n: u32, sum: u32, top: u32) -> u32 {
  var power = min(UNIT_BITS + 1u, UNIT_BITS + EXPONENT_MAX - top);
  while (power > 0u && 4u * sum <= ((3u * n) << power)) {
    power -= 1u;
  }
  return power;
}

// Their error but for the squares of the values, in squared units of an octave that is `up` above theirs, rounded down: 64 bits,
// the high ones first.
fn error_of(n: u32, sum: u32, power: u32, up: u32) -> vec2<u32> {
  let part = i32(n << power) - i32(2u * sum);
  let shift = i32(power) - 2 * i32(up);
  if (shift >= 0) {
    return vec2(bitcast<u32>((part >> 1u) >> u32(31 - shift)), bitcast<u32>(part) << u32(shift));
  }
  let less = part >> u32(min(31, -shift));
  return vec2(bitcast<u32>(less >> 31u), bitcast<u32>(less));
}

fn plus(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
  let low = a.y + b.y;
  return vec2(a.x + b.x + select(0u, 1u, low < a.y), low);
}

fn is_less(a: vec2<u32>, b: vec2<u32>) -> bool {
  return bitcast<i32>(a.x) < bitcast<i32>(b.x) || (a.x == b.x && a.y < b.y);
}

// createMagnitudeSearch in tensor/magnitude.ts.
fn find_levels(count: u32) -> vec3<u32> {
  let top = atomicLoad(&last);
  var total = 0u;
  for (var at = 1u; at < CLASSES; at++) {
    total += atomicLoad(&sums[at]) >> below_top(at);
  }
  let only = power_for(count, total, top);
  var best = vec3(top + only - UNIT_BITS, top + only - UNIT_BITS, CLASSES);
  var least = error_of(count, total, only, 0u);
  var n = atomicLoad(&numbers[0]);
  var sum = atomicLoad(&sums[0]);
  var sum_in_top = 0u;
  // Octaves that the part ends below the highest.
  var down = select(31u, top - atomicLoad(&dust), n > 0u);
  for (var at = 1u; at < CLASSES; at++) {
    let more = atomicLoad(&numbers[at]);
    if (more == 0u) {
      continue;
    }
    if (n > 0u) {
      let small = power_for(n, sum, top - down);
      let large = power_for(count - n, total - sum_in_top, top);
      let low = top + small - down - UNIT_BITS;
      let high = top + large - UNIT_BITS;
      let error = plus(error_of(n, sum, small, down), error_of(count - n, total - sum_in_top, large, 0u));
      if (low < high && is_less(error, least)) {
        least = error;
        best = vec3(low, high, at);
      }
    }
    let own = atomicLoad(&sums[at]);
    let next = below_top(at);
    sum = (sum >> min(31u, down - next)) + own;
    down = next;
    n += more;
    sum_in_top += own >> down;
  }
  return best;
}

// ORs the low `count` bits (1 to 16) of `value` into the slot.
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
      atomicMax(&last, pattern >> 23u);
    }
  }
  masks[thread] = mask;
  workgroupBarrier();

  let top = atomicLoad(&last);
  for (var i = 0u; i < OWN; i++) {
    if ((mask & (1u << i)) != 0u && class_of(own[i], top) == 0u) {
      atomicMax(&dust, own[i] >> 23u);
    }
  }
  workgroupBarrier();

  for (var i = 0u; i < OWN; i++) {
    if ((mask & (1u << i)) != 0u) {
      let at = class_of(own[i], top);
      let units = ((own[i] & 0x7fffffu) | 0x800000u) >> (23u - UNIT_BITS);
      let down = select(0u, min(31u, atomicLoad(&dust) - (own[i] >> 23u)), at == 0u);
      atomicAdd(&numbers[at], 1u);
      atomicAdd(&sums[at], units >> down);
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

  if (thread == 0u && count > 0u) {
    levels = find_levels(count);
  }
  workgroupBarrier();

  let whole = count == length;
  var rice = 0u;
  while (rice < RICE_MAX && atomicLoad(&saved[min(rice, RICE_MAX - 1u)]) > count) {
    rice++;
  }
  let low = levels.x;
  let high = levels.y;
  let value_bits = select(1u, 2u, low < high);
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
      // What follows the zeros of the gap: a one, its low bits, the sign, the pick.
      var value = 0u;
      var taken = 0u;
      if (!whole) {
        at += gap >> rice;
        value = 1u | ((gap & ((1u << rice) - 1u)) << 1u);
        taken = 1u + rice;
      }
      value |= ((negative >> i) & 1u) << taken;
      if (low < high) {
        value |= select(0u, 2u << taken, class_of(own[i], top) >= levels.z);
      }
      put(at, value, taken + value_bits);
      at += taken + value_bits;
    }
  }
  if (thread == 255u && count > 0u) {
    put(0u, select((rice | (low << 4u) | (high << 12u)) & 0xffffu, low | (high << 8u), whole), 16u);
    if (!whole) {
      put(16u, high >> 4u, 4u);
    }
    atomicStore(&bits[0], count | (at << 16u));
  }
  workgroupBarrier();

  let flawed = atomicLoad(&flaws) != 0u;
  for (var i = thread; i < SLOT; i += 256u) {
    slots[chunk * SLOT + i] = select(atomicLoad(&bits[i]), select(0u, NOT_FINITE, i == 0u), flawed);
  }
}
