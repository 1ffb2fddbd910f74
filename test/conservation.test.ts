/**
 * Error feedback through everything that may happen to a contributor: what was accepted and what waits at home add up to all
 * that training made, whichever contributions were refused, forgotten by the relay or answered only after a restart, and
 * whenever the device was switched off. (training.md §6.3, iii)
 */
import { expect, test } from "vitest";
import { digestOf, floatBytes, type Digest } from "../src/base/bytes.ts";
import { createRng } from "../src/base/rng.ts";
import { createStop } from "../src/base/stop.ts";
import { createDesk, type Desk } from "../src/contributor/desk.ts";
import { openNotebook } from "../src/contributor/notebook.ts";
import type { Pending } from "../src/contributor/state.ts";
import { charterDigest } from "../src/protocol/charter-codec.ts";
import { keepMaxOf, keepOf, type Compression } from "../src/protocol/charter.ts";
import { PIECE_BYTES } from "../src/protocol/limits.ts";
import { createKeyRegistry } from "../src/sim/keys.ts";
import { createMemoryDisk, createMemoryStore } from "../src/store/memory.ts";
import { unpackUpdate } from "../src/update/unpack.ts";
import { decodeContributorMessage } from "../src/protocol/codec.ts";
import { littleCharter } from "./fixtures/little-run.ts";

/** Of four chunks, the last one short. */
const P = 3 * 4_096 + 300;
const ROUNDS = 40;
const job = { deadlineMs: 1e9, signal: createStop(), onStep: () => undefined };

async function accounts(compression: Compression, seed: number) {
  const uplink = { ...compression, together: 3 * compression.keep, carry: seed % 2 === 0 };
  const charter = littleCharter({ train: [], uplink });
  const run = charterDigest(charter);
  const rng = createRng("conservation", seed);
  const disk = createMemoryDisk();
  const base = new Float32Array(P);
  const head = {
    version: 0,
    digest: digestOf(floatBytes(base)),
    parent: null,
    update: null,
    checkpointBytes: 4 * P,
    evalLoss: 1,
  };
  const [made, accepted] = [new Float64Array(P), new Float64Array(P)];
  let pending: Pending | null = null;
  /** Made before the last one, and still without a verdict when that was made. */
  let late: Pending | null = null;
  const restart = async (): Promise<Desk> => {
    const desk = createDesk({
      run,
      charter,
      key: createKeyRegistry().create("conservation"),
      hash: async (bytes) => digestOf(bytes),
      privateData: false,
      pieceBytes: PIECE_BYTES,
      fetchBlob: async () => floatBytes(base),
      store: createMemoryStore({ disk }),
      createWork: async () => ({
        train: async (_assignment, start) => {
          const after = Float32Array.from({ length: P }, () => rng.normal() ** 3 / 64);
          after.forEach((value, p) => {
            made[p] = (made[p] as number) + (start[p] as number) - value;
          });
          return { after, losses: [1], steps: 1, tokens: 32 };
        },
        validate: async () => Promise.reject(new Error("Nothing is validated here")),
        moments: async () => null,
        restore: async () => undefined,
        [Symbol.dispose]: () => undefined,
      }),
      onEngine: () => undefined,
      onTrouble: (reason) => {
        throw new Error(reason);
      },
    });
    expect(await desk.prepare(0)).toEqual({ pending, late });
    await desk.fetch(head, []);
    return desk;
  };
  let [acceptances, lateAcceptances, lateOnesKept] = [0, 0, 0];
  const answer = async (one: Pending | null): Promise<void> => {
    if (one !== null) {
      const outcome = rng.below(3) === 0 ? "kept" : "accepted";
      const message = decodeContributorMessage(desk.messageOf(one.id) ?? new Uint8Array(0));
      expect(message.ok).toBe(true);
      if (outcome === "accepted" && message.ok && message.value.type === "contribute") {
        const sent = unpackUpdate(message.value.payload, { parameters: P, keepMax: keepMaxOf(charter) });
        expect(sent.ok).toBe(true);
        if (sent.ok) {
          acceptances += 1;
          lateAcceptances += one === late ? 1 : 0;
          sent.value.indices.forEach((index, i) => {
            accepted[index] = (accepted[index] as number) + (sent.value.values[i] as number);
          });
        }
      }
      lateOnesKept += one === late && outcome === "kept" ? 1 : 0;
      await desk.settle(one.id, outcome);
      [pending, late] = [pending === one ? null : pending, late === one ? null : late];
    }
  };
  let desk = await restart();
  let restarts = 0;
  for (let round = 1; round <= ROUNDS; round += 1) {
    const { digest: baseDigest } = head;
    const id = { id: `t${round}`, round, baseVersion: 0, baseDigest: baseDigest as Digest };
    const keep = keepOf(uplink, 1 + rng.below(4));
    const made = await desk.train({ type: "train", ...id, seed: round, stepsMax: 1, keep, trainMs: 1 }, job);
    [pending, late] = [made, pending];
    for (let times = rng.below(3); times > 0; times -= 1) {
      desk = await restart(); // before the verdict: the contribution is remembered
      restarts += 1;
    }
    for (const one of rng.below(2) === 0 ? [late, pending] : rng.below(2) === 0 ? [pending, late] : [late]) {
      await answer(one);
    }
    if (rng.below(4) === 0) {
      desk = await restart();
      restarts += 1;
    }
  }
  await answer(pending);
  const { residual } = await openNotebook(createMemoryStore({ disk }), run).read();
  expect(restarts).toBeGreaterThan(10);
  expect(acceptances).toBeGreaterThan(ROUNDS / 3);
  expect(lateAcceptances).toBeGreaterThan(2);
  expect(lateOnesKept).toBeGreaterThan(0);
  return { made, accepted, residual: residual ?? new Float32Array(P) };
}

for (const [uplink, digits] of [
  [{ keep: 20, bits: 1, beta: 1 }, 4],
  [{ keep: 20, bits: 2, beta: 1 }, 4],
  [{ keep: 20, bits: 4, beta: 1 }, 4],
  [{ keep: 20, bits: 64, beta: 1 }, 12],
] as const) {
  for (const seed of [1, 2, 3]) {
    test(`what was accepted and the residual are all that was made: ${uplink.bits} bits, seed ${seed}`, async () => {
      const { made, accepted, residual } = await accounts(uplink, seed);
      expect(Math.hypot(...made)).toBeGreaterThan(1);
      for (let p = 0; p < P; p += 1) {
        expect((accepted[p] as number) + (residual[p] as number)).toBeCloseTo(made[p] as number, digits);
      }
    });
  }
}
