/**
 * Which entries of a chunk are sent: the `keep` largest by magnitude, of equal ones the lower index. `selectLargest` works
 * on the bit patterns of f32 magnitudes, which are ordered like the magnitudes, and finds the smallest one kept by a radix
 * search of 11, 10 and 10 bits; `selectBySorting` is the obvious version, used for f64 and as the twin in tests.
 */

export interface Selector {
  /**
   * `magnitudes`: f32 bit patterns without sign, at least `length` of them; zeros are never picked. Writes the picked
   * indices, ascending, into `picked` and returns how many there are.
   */
  (magnitudes: Uint32Array, length: number, keep: number, picked: Uint16Array): number;
}

/** Makes a selector with its own scratch memory for chunks of at most `lengthMax`. */
export function createSelector(lengthMax: number): Selector {
  const counts = new Uint16Array(2048);
  const rest = new Uint32Array(lengthMax);
  return (magnitudes, length, keep, picked) => {
    counts.fill(0);
    let nonzero = 0;
    for (let i = 0; i < length; i += 1) {
      const magnitude = magnitudes[i] as number;
      nonzero += magnitude === 0 ? 0 : 1;
      const bin = magnitude >>> 20;
      counts[bin] = (counts[bin] as number) + 1;
    }
    if (nonzero <= keep) {
      return pick(magnitudes, length, { above: 0, equal: 0 }, picked);
    }
    // The bin of the smallest magnitude kept, and how many of that bin are kept.
    let { bin: top, left } = descend(counts, 2047, keep);
    let n = 0;
    for (let i = 0; i < length; i += 1) {
      const magnitude = magnitudes[i] as number;
      if (magnitude >>> 20 === top) {
        rest[n] = magnitude;
        n += 1;
      }
    }
    for (const shift of [10, 0]) {
      counts.fill(0, 0, 1024);
      for (let i = 0; i < n; i += 1) {
        const bin = ((rest[i] as number) >>> shift) & 1023;
        counts[bin] = (counts[bin] as number) + 1;
      }
      const found = descend(counts, 1023, left);
      left = found.left;
      top = top * 1024 + found.bin;
      let m = 0;
      for (let i = 0; i < n; i += 1) {
        const magnitude = rest[i] as number;
        if (magnitude >>> shift === top) {
          rest[m] = magnitude;
          m += 1;
        }
      }
      n = m;
    }
    return pick(magnitudes, length, { above: top, equal: left }, picked);
  };
}

/** Goes down from bin `from` until `keep` are passed; returns the bin reached and how many of it are still to be kept. */
function descend(counts: Uint16Array, from: number, keep: number): { bin: number; left: number } {
  let bin = from;
  let left = keep;
  while ((counts[bin] as number) < left) {
    left -= counts[bin] as number;
    bin -= 1;
  }
  return { bin, left };
}

/** Picks everything above a magnitude and the first `equal` that equal it. */
function pick(
  magnitudes: Uint32Array,
  length: number,
  { above, equal }: { above: number; equal: number },
  picked: Uint16Array,
): number {
  let n = 0;
  let left = equal;
  for (let i = 0; i < length; i += 1) {
    const magnitude = magnitudes[i] as number;
    if (magnitude > above) {
      picked[n] = i;
      n += 1;
    } else if (left > 0 && magnitude === above) {
      picked[n] = i;
      n += 1;
      left -= 1;
    }
  }
  return n;
}

/** The indices of the `keep` largest |values|, of equal ones the lower index, ascending; zeros are picked too. */
export function selectBySorting(values: Float32Array | Float64Array, keep: number): number[] {
  const order = Array.from(values, (_, i) => i);
  order.sort((i, j) => Math.abs(values[j] as number) - Math.abs(values[i] as number) || i - j);
  return order.slice(0, keep).sort((i, j) => i - j);
}
