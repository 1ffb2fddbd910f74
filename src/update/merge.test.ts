import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { HeddleError } from "../base/assert.ts";
import type { Bytes } from "../base/bytes.ts";
import { createRng, permutation } from "../base/rng.ts";
import { lowerMedian, sortedOf } from "../base/sorted.ts";
import { loadMergeKernel } from "../wasm/merge.ts";
import { updateNorm } from "./delta.ts";
import { HEADER_BYTES } from "./format.ts";
import type { Compression } from "../protocol/charter.ts";
import type { MergeKernel } from "./kernel.ts";
import {
  clipScales,
  groupBytesMax,
  mergePacked,
  stretchFactor,
  type MergeOptions,
  type PackedContribution,
} from "./merge.ts";
import { packUpdate } from "./pack.ts";
import { RangeWork } from "./range.ts";
import { samples, updateValues } from "./samples.fixture.ts";
import { mergeUpdates } from "./twin.ts";
import { unpackUpdate, type SparseUpdate } from "./unpack.ts";

const openKernel = await loadMergeKernel();
/** Workers of which a test can see what they hold. */
const crewOf = (count: number) => ({ workers: Array.from({ length: count }, () => new RangeWork(openKernel())) });
const crew = crewOf(1);
const three = crewOf(3);

interface Sent {
  readonly id: string;
  readonly bytes: Bytes;
  readonly weight: number;
  readonly privateData?: boolean;
}

/** An update of `dense` in which what is zero is not sent. */
function one(id: string, dense: readonly number[], weight = 1): Sent {
  const keep = dense.filter((value) => value !== 0).length;
  const form = keep === 0 ? { keep: 1, bits: 2, beta: 1 } : { keep, bits: 64, beta: 1 };
  return { id, weight, bytes: packUpdate(Float64Array.from(dense), form as Compression) };
}

function unpacked(bytes: Bytes): SparseUpdate {
  const parameters = new DataView(bytes.buffer, bytes.byteOffset).getUint32(8, true);
  const update = unpackUpdate(bytes, { parameters, keepMax: 4096 });
  if (!update.ok) {
    throw new Error(update.detail);
  }
  return update.value;
}

const packed = ({ bytes, ...facts }: Sent): PackedContribution => ({
  ...facts,
  norm: updateNorm(unpacked(bytes)),
  bytes: bytes.length,
  read: async () => bytes,
});

type Merge = (sent: readonly Sent[], options: MergeOptions) => Promise<Float64Array>;
/** The merged delta of all ranges, stretched where that is asked for. */
const mergeBy = async (
  { workers }: { readonly workers: readonly RangeWork[] },
  sent: readonly PackedContribution[],
  options: MergeOptions,
): Promise<Float64Array> => {
  const merged = await mergePacked({ workers }, sent, options);
  const at = workers.slice(0, merged.workers.length);
  const squares = at.reduce((sum, worker) => worker.squares(sum), 0);
  const factor = options.stretch > 0 ? stretchFactor(squares, merged.parts, options.stretch) : 1;
  return Float64Array.from(at.flatMap((worker) => [...worker.means()])).map((value) => value * factor);
};
const fast: Merge = (sent, options) => mergeBy(crew, sent.map(packed), options);
const plain: Merge = async (sent, options) =>
  mergeUpdates(
    sent.map(({ bytes, ...facts }) => ({ ...facts, update: unpacked(bytes) })),
    options,
  );

const free = { parameters: 3, clipToMedian: 0, normPower: 0, stretch: 0 };
const bits = (values: Float64Array): Bytes => new Uint8Array(values.slice().buffer);
const norm = (values: Float64Array): number => Math.sqrt(values.reduce((sum, value) => sum + value * value, 0));

describe.each([
  ["mergePacked()", fast],
  ["its twin", plain],
])("%s", (_name, merge) => {
  test("takes the weighted mean of all, in which what is not sent is zero", async () => {
    expect([...(await merge([one("a", [2, 4, 0], 1), one("b", [0, 8, 0], 3)], free))]).toEqual([0.5, 7, 0]);
  });

  test("gives exactly what was sent where there is one update, whatever its weight", async () => {
    const value = fc.double({ min: -1e9, max: 1e9, noNaN: true });
    const weight = fc.double({ min: 1e-9, max: 1e9, noNaN: true });
    await fc.assert(
      fc.asyncProperty(value, weight, async (v, w) => {
        const merged = await merge([one("a", [v, 0, 0], w)], free);
        expect(merged[0]).toBe(v === 0 ? 0 : v);
      }),
    );
  });

  test("bounds what a contributor that shouts can do", async () => {
    const rng = createRng("shout");
    const dense = (): number[] => Array.from({ length: 200 }, () => rng.normal());
    const honest = Array.from({ length: 7 }, (_, i) => one(`honest ${i}`, dense()));
    const loud = one(
      "loud",
      dense().map((value) => value * 100),
    );
    const options = { parameters: 200, clipToMedian: 1, normPower: 0, stretch: 0 };
    const without = norm(await merge(honest, options));
    const median = lowerMedian(sortedOf(honest.map(({ bytes }) => updateNorm(unpacked(bytes)))));
    const clipped = norm(await merge([...honest, loud], options));
    expect(clipped).toBeLessThanOrEqual((7 / 8) * without + median / 8 + 1e-9);
    const unbounded = norm(
      await merge([...honest, loud], { parameters: 200, clipToMedian: 0, normPower: 0, stretch: 0 }),
    );
    expect(unbounded).toBeGreaterThan(5 * clipped);
  });

  test("clips nobody to an update on private data, however small", async () => {
    const sent = [{ ...one("a", [0, 0, 1e-6]), privateData: true }, one("b", [0, 8, 0])];
    expect([...(await merge(sent, { parameters: 3, clipToMedian: 1, normPower: 0, stretch: 0 }))]).toEqual([
      0, 4, 5e-7,
    ]);
  });

  test("of two contributors the quieter one bounds the other", async () => {
    const sent = [one("a", [1, 0, 0]), one("b", [0, 1000, 0])];
    expect([...(await merge(sent, { parameters: 3, clipToMedian: 2, normPower: 0, stretch: 0 }))]).toEqual([0.5, 1, 0]);
  });

  test("empty updates do not count to the median", async () => {
    const sent = [one("a", [0, 0, 0]), one("b", [0, 0, 0]), one("c", [5, 0, 0])];
    expect((await merge(sent, { parameters: 3, clipToMedian: 1, normPower: 0, stretch: 0 }))[0]).toBeCloseTo(5 / 3, 12);
    expect([...(await merge([], free))]).toEqual([0, 0, 0]);
  });

  test("stretched: the mean's direction, with the weighted mean norm of what was sent, clipped", async () => {
    const stretched = { parameters: 3, clipToMedian: 0, normPower: 0, stretch: 1 };
    const apart = [one("a", [3, 4, 0], 1), one("b", [-1, 0, 0], 3)];
    const merged = await merge(apart, stretched);
    expect(norm(merged)).toBeCloseTo((5 + 3 * 1) / 4, 12);
    const mean = await merge(apart, free);
    expect(mean.every((value, i) => Math.abs(value / norm(mean) - (merged[i] as number) / norm(merged)) < 1e-12)).toBe(
      true,
    );
    // Part of the way is as much of the distance between the two norms.
    const partly = norm(await merge(apart, { ...stretched, stretch: 0.25 }));
    expect(partly).toBeCloseTo(0.25 * 2 + 0.75 * norm(mean), 12);
    // The louder one counts with the quieter one's norm.
    expect(norm(await merge(apart, { ...stretched, clipToMedian: 1, normPower: 0 }))).toBeCloseTo(1, 12);
    // What points the same way is not stretched, and what cancels out stays nothing.
    const alike = [one("a", [3, 4, 0]), one("b", [3, 4, 0])];
    expect([...(await merge(alike, stretched))].map((value) => Math.round(value * 1e9) / 1e9)).toEqual([3, 4, 0]);
    expect([...(await merge([one("a", [1, 0, 0]), one("b", [-1, 0, 0])], stretched))]).toEqual([0, 0, 0]);
    expect([...(await merge([], stretched))]).toEqual([0, 0, 0]);
  });

  test("normPower: weights go with a power of the clipped norm, and nothing overflows", async () => {
    const apart = [one("a", [4, 0, 0], 1), one("b", [0, 2, 0], 2), one("c", [0, 0, 2], 1)];
    // Norms 4, 2, 2: squares count 16, 4, 4, times the weights 16, 8, 4.
    expect([...(await merge(apart, { ...free, normPower: 2 }))]).toEqual(
      [(4 * 16) / 28, (2 * 8) / 28, (2 * 4) / 28].map((value) => expect.closeTo(value, 12)),
    );
    // Clipped to 2 it counts as one of them.
    expect([...(await merge(apart, { ...free, clipToMedian: 1, normPower: 2 }))]).toEqual([0.5, 1, 0.5]);
    const loud = [one("a", [1e30, 0, 0], 3), one("b", [0, 1e-30, 0], 5), one("c", [0, 0, 0], 7)];
    expect((await merge(loud, { ...free, normPower: 16 }))[0]).toBe(1e30);
    expect([...(await merge([one("a", [0, 0, 0])], { ...free, normPower: 16 }))]).toEqual([0, 0, 0]);
  });

  test("repeated ids and useless weights are bugs", async () => {
    await expect(
      merge([one("a", [1]), one("a", [1])], { parameters: 1, clipToMedian: 0, normPower: 0, stretch: 0 }),
    ).rejects.toThrow(/twice/);
    for (const weight of [0, -1, NaN, Infinity]) {
      await expect(merge([one("a", [1, 0, 0], weight)], free)).rejects.toThrow(/weight/);
    }
  });
});

describe("mergePacked()", () => {
  test("has its twin's bits in every form, with one worker and with three, wherever groups are cut and whoever came first", async () => {
    const form = fc.tuple(fc.constantFrom<Compression["bits"]>(1, 2, 3, 4, 64), fc.constantFrom(1, 3, 64, 700, 4096));
    const round = fc.record({
      values: updateValues(),
      forms: fc.array(form, { maxLength: 9 }),
      seed: fc.integer(),
      clipToMedian: fc.constantFrom(0, 1, 1.5),
      normPower: fc.constantFrom(0, 1, 12),
      stretch: fc.constantFrom(0, 0.3, 1),
      packedBytesMax: fc.constantFrom(1, 700, 30_000, 2 ** 30),
    });
    await fc.assert(
      fc.asyncProperty(round, async ({ values, forms, seed, packedBytesMax, ...settings }) => {
        const rng = createRng("merge", seed);
        const parameters = values.length;
        const sent = forms.map(([bits, keep], i): Sent => {
          const own = values.map((value) => (rng.float() < 0.3 ? 0 : Math.fround(value * (0.5 + rng.float()))));
          return { id: `id ${i}`, bytes: packUpdate(own, { keep, bits, beta: 1 }), weight: 1 + rng.below(1_000_000) };
        });
        const shuffled = [...permutation(sent.length, rng)].map((i) => sent[i] as Sent);
        const wanted = bits(await plain(sent, { parameters, ...settings }));
        for (const each of [crew, three]) {
          const merged = await mergeBy(each, shuffled.map(packed), { parameters, ...settings, packedBytesMax });
          expect(bits(merged)).toEqual(wanted);
        }
      }),
      { numRuns: 50 },
    );
  });

  test("decodes gaps of any length: a run of neighbours and one index at the end of the chunk", async () => {
    for (const [neighbours, last] of [
      [1, 4095],
      [2, 4095],
      [64, 4095],
      [500, 4000],
      [4094, 4095],
    ] as const) {
      const values = Float32Array.from({ length: 4096 }, (_, i) => (i < neighbours || i === last ? i + 1 : 0));
      for (const width of [1, 2, 3, 4, 64] as const) {
        const bytes = packUpdate(values, { keep: neighbours + 1, bits: width, beta: 1 });
        const sent = [{ id: "a", bytes, weight: 3 }];
        const options = { parameters: 4096, clipToMedian: 0, normPower: 0, stretch: 0 };
        expect(bits(await fast(sent, options))).toEqual(bits(await plain(sent, options)));
      }
    }
  });

  test("refuses damaged payloads or merges what they say, and touches nothing but its own", async () => {
    const rng = createRng("damage");
    const parameters = 3 * 4096 - 7;
    const forms = ([1, 2, 3, 4, 64] as const).flatMap((bits) => [5, 64, 4096].map((keep) => ({ keep, bits, beta: 1 })));
    const originals = forms.map((form, i) => packUpdate(samples("laplace", parameters, i), form));
    const whole = packed({ id: "a", bytes: originals[1] as Bytes, weight: 1 });
    const own = openKernel();
    const ownCrew = { workers: [new RangeWork(own)] };
    await mergePacked(ownCrew, [whole], { parameters, clipToMedian: 0, normPower: 0 });
    own.memory.grow(8);
    const guarded = new Uint8Array(own.memory.buffer, own.memory.buffer.byteLength - 4 * 65_536).fill(0xa5);
    let noticed = 0;
    for (let run = 0; run < 1_200; run += 1) {
      const bytes = (originals[run % originals.length] as Bytes).slice();
      for (let flips = rng.below(4); flips >= 0; flips -= 1) {
        const at = rng.below(run % 5 === 0 ? 60 : bytes.length);
        bytes[at] = (bytes[at] as number) ^ (1 << rng.below(8));
      }
      const damaged = { id: "b", weight: 1, norm: 1, bytes: bytes.length, read: async () => bytes };
      const failure = await mergePacked(ownCrew, [whole, damaged], { parameters, clipToMedian: 0, normPower: 0 }).then(
        () => {
          const means = ownCrew.workers[0]?.means() as Float64Array;
          const padding = new Float64Array(means.buffer, means.byteOffset + parameters * 8, 7);
          expect(padding.every((value) => value === 0)).toBe(true);
          return "none";
        },
        (error: HeddleError) => {
          noticed += 1;
          return error.message;
        },
      );
      const message = 'Cannot merge updates: the payload of "b" is damaged';
      expect(["none", message]).toContain(failure);
      if (run % 4 === 0) {
        // Several workers notice the same.
        const inThree = mergePacked(three, [whole, damaged], {
          parameters,
          clipToMedian: 0,
          normPower: 0,
        });
        const same = await inThree.then(
          () => "none",
          (error: HeddleError) => error.message,
        );
        expect(same).toBe(failure);
      }
    }
    expect(noticed).toBeGreaterThan(300);
    expect(guarded.every((byte) => byte === 0xa5)).toBe(true);
  });

  test("rejects payloads that end early, go on, or are for another model", async () => {
    const good = packUpdate(samples("gauss", 5000), { keep: 64, bits: 2, beta: 1 });
    const exact = packUpdate(samples("gauss", 5000), { keep: 64, bits: 64, beta: 1 });
    const ofHeader = (at: number, value: number, from = good): Bytes => {
      const copy = from.slice();
      new DataView(copy.buffer).setUint32(at, value, true);
      return copy;
    };
    const cases: Readonly<Record<string, Bytes>> = {
      "no header": good.slice(0, HEADER_BYTES - 1),
      "fewer bytes than it says": good.slice(0, -1),
      "another model": ofHeader(8, 4999),
      "more entries than there are": ofHeader(12, 200),
      "fewer entries than there are": ofHeader(12, 3),
      "more exact values than bytes": ofHeader(12, 2 ** 30, exact),
      "a bit section that ends early": ofHeader(16, 60, good.slice(0, 60)),
      "a bit section that goes on": ofHeader(16, good.length + 1, new Uint8Array([...good, 0])),
      "only zeros": ofHeader(16, good.length, new Uint8Array(good.length).fill(0)),
      "zeros after the header": good.map((byte, at) => (at < HEADER_BYTES ? byte : 0)),
      "ones after the header": good.map((byte, at) => (at < HEADER_BYTES ? byte : 255)),
      "an exact value that is not finite": exact.map((byte, at) => (at < exact.length - 8 ? byte : 255)),
    };
    for (const [what, bytes] of Object.entries(cases)) {
      const sent = { id: "a", weight: 1, norm: 1, bytes: bytes.length, read: async () => bytes };
      for (const each of [crew, crewOf(2)]) {
        const merged = mergePacked(each, [sent], { parameters: 5000, clipToMedian: 0, normPower: 0 });
        await expect(merged, what).rejects.toMatchObject({ code: "integrity" });
      }
    }
    const other = { ...packed({ id: "a", bytes: good, weight: 1 }), read: async () => good.slice(1) };
    await expect(mergePacked(crew, [other], { parameters: 5000, clipToMedian: 0, normPower: 0 })).rejects.toThrow(
      /damaged/,
    );
  });

  test("takes 8 bytes a parameter and a group of payloads, however many there are", async () => {
    const parameters = 1_000_000;
    const bytes = packUpdate(samples("laplace", parameters), { keep: 64, bits: 2, beta: 1 });
    const round = (count: number): Sent[] =>
      Array.from({ length: count }, (_, i) => ({ id: `id ${i}`, bytes, weight: 1 }));
    const memoryAfter = async (count: number, packedBytesMax: number, workers = 1): Promise<number> => {
      const kernels = Array.from({ length: workers }, openKernel);
      const own = { workers: kernels.map((kernel) => new RangeWork(kernel)) };
      await mergePacked(own, round(count).map(packed), { parameters, clipToMedian: 1, normPower: 0, packedBytesMax });
      return kernels.reduce((sum, { memory }) => sum + memory.buffer.byteLength, 0) / parameters;
    };
    const share = bytes.length / parameters;
    expect(await memoryAfter(4, 2 ** 30)).toBeLessThan(8.3 + 4 * share);
    expect(await memoryAfter(6, 2 * bytes.length + 64)).toBeLessThan(8.3 + 2 * share);
    expect(await memoryAfter(12, 2 * bytes.length + 64)).toBeLessThan(8.3 + 2 * share);
    // A worker has at most a payload that it cuts and half a page more.
    expect(await memoryAfter(4, 2 ** 30, 3)).toBeLessThan(8.3 + 4 * share + 3 * (share + 0.2));
  });

  test.each([2 ** 28, 1_000_000])(
    "has room at %i parameters for a round's payloads, however many there are",
    async (parameters) => {
      const reached = new Error("It got as far as reading");
      let pages = 0;
      const onPaper: MergeKernel = {
        heapBegin: () => 4_096,
        open: () => undefined,
        skip: () => 1,
        bitOf: () => 0,
        leftOf: () => 0,
        merge: () => -1,
        CURSOR_BYTES: { value: 48 },
        READ_AHEAD: { value: 320 },
        memory: {
          buffer: new ArrayBuffer(0),
          grow: (by) => {
            pages += by;
            return 0;
          },
        },
      };
      const bytes = 4_000_000;
      const count = 1_000;
      const read = () => Promise.reject(reached);
      const all = Array.from({ length: count }, (_, i) => ({ id: `id ${i}`, weight: 1, norm: 1, bytes, read }));
      const paper = { workers: [new RangeWork(onPaper)] };
      await expect(mergePacked(paper, all, { parameters, clipToMedian: 1, normPower: 0 })).rejects.toBe(reached);
      pages += Math.ceil(Math.min(groupBytesMax(parameters), count * bytes) / 65_536);
      expect(pages).toBeLessThanOrEqual(65_536);
    },
  );

  test("says when the memory does not suffice", async () => {
    const parameters = 2 ** 29; // the means alone are all that a memory can have
    await expect(mergePacked(crew, [], { parameters, clipToMedian: 0, normPower: 0 })).rejects.toMatchObject({
      code: "limit",
    });
  });
});

test("clipScales() lets what has more steps than the median be larger in proportion, and no more", () => {
  const parts = (...sizes: readonly (readonly [number, number])[]) => sizes.map(([norm, steps]) => ({ norm, steps }));
  expect(clipScales(parts([1, 10], [4, 40]), 1)).toEqual([1, 1]);
  expect(clipScales(parts([1, 10], [8, 40]), 1)).toEqual([1, 0.5]);
  expect(clipScales(parts([4, 10], [1, 40], [2, 10]), 1)).toEqual([0.5, 1, 1]);
  expect(clipScales([{ norm: 1 }, { norm: 4 }], 1)).toEqual([1, 0.25]);
});

test("clipScales() is misled neither by tiny updates on private data nor by one that is not among many that are", () => {
  const tiny = { norm: 1e-6, steps: 1, privateData: true };
  const own = { norm: 40, steps: 10, privateData: true };
  const open = { norm: 10, steps: 10, privateData: false };
  expect(clipScales([tiny, tiny, own, open], 2)).toEqual([1, 1, 0.5, 1]);
  expect(clipScales([tiny, own], 1)).toEqual([1, (10 * 1e-6) / 40]);
  expect(clipScales([own, own, { ...tiny, privateData: false }], 1)).toEqual([1, 1, 1]);
  expect(clipScales([{ norm: 0 }, { norm: 0 }, { norm: 0 }, { norm: 1 }, { norm: 4 }], 1)).toEqual([1, 1, 1, 1, 0.25]);
});
