import { describe, expect, test } from "vitest";
import { digestOf, floatBytes, type Bytes, type Digest } from "../base/bytes.ts";
import { HeddleError } from "../base/assert.ts";
import { createStop } from "../base/stop.ts";
import type { Charter } from "../protocol/charter.ts";
import { charterDigest } from "../protocol/charter-codec.ts";
import { decodeContributorMessage, decodeHeader } from "../protocol/codec.ts";
import { PIECE_BYTES } from "../protocol/limits.ts";
import type { ContributionHeader, TrainAssignment, ValidateAssignment, VersionInfo } from "../protocol/messages.ts";
import { sampleCharter } from "../protocol/sample.ts";
import { createKeyRegistry } from "../sim/keys.ts";
import { createMemoryStore } from "../store/memory.ts";
import type { Store } from "../store/store.ts";
import { unpackUpdate } from "../update/unpack.ts";
import { createDesk, type Desk } from "./desk.ts";
import { packOnHost, type Feed } from "./packing.ts";
import type { Outcome, Pending } from "./state.ts";
import type { Terms } from "./terms.ts";
import type { TrainOptions } from "./work.ts";

const P = 8;
const job = { deadlineMs: 1e9, signal: createStop(), onStep: () => undefined };
const shard = { digest: digestOf(new Uint8Array(1)), bytes: 1 };
const data = { name: "d", licence: "CC0-1.0", category: "fully-open", shards: [shard] } as const;
const sample = sampleCharter([], data);
const exact = { keep: 4096, bits: 64, beta: 1 } as const;

/** What goes wrong, from when a test says so. */
interface Faults {
  lost?: boolean;
  /** Steps that the work takes of those it may; 3 where nothing is said. */
  steps?: number;
  /** Called when parameters are read from the engine. */
  readBack?: () => Promise<void>;
  unreadable?: boolean;
  /** The blob that the store cannot read, and whether it has no room for any. */
  damaged?: Digest;
  full?: boolean;
  /** What a member asks. */
  terms?: Terms;
}

/** A desk whose work takes 1 from every parameter in a step, and what that work was asked for. */
async function deskOf(aheadShare: number, changes: Partial<Charter> = {}, faults: Faults = {}) {
  const charter = {
    ...sample,
    uplink: { ...exact, together: 0, carry: false },
    round: { ...sample.round, aheadMax: 5, aheadShare },
    ...changes,
  };
  const served = new Map<Digest, Bytes>();
  const checked: unknown[] = [];
  const troubles: string[] = [];
  const asked: { from: number; first: number | undefined; steps: number; assignment: string }[] = [];
  const store = createMemoryStore();
  const keys: Store["keys"] = {
    ...store.keys,
    get: async (key) => (faults.unreadable === true ? Promise.reject(new Error("busy")) : store.keys.get(key)),
  };
  const blobs: Store["blobs"] = {
    ...store.blobs,
    get: async (digest) =>
      digest === faults.damaged ? Promise.reject(new HeddleError("integrity", "damaged")) : store.blobs.get(digest),
    put: async (bytes) =>
      faults.full === true ? Promise.reject(new HeddleError("store", "full")) : store.blobs.put(bytes),
  };
  const desk = createDesk({
    run: charterDigest(charter),
    charter,
    key: createKeyRegistry().create("desk"),
    privateData: faults.terms !== undefined,
    terms: faults.terms,
    pieceBytes: PIECE_BYTES,
    hash: async (bytes) => digestOf(bytes),
    fetchBlob: async (digest) => served.get(digest) ?? Promise.reject(new HeddleError("absent", "gone")),
    store: { ...store, keys, blobs },
    createWork: async () => ({
      train: async ({ stepsMax, id }: TrainAssignment, from: Float32Array, { firstStep }: TrainOptions) => {
        if (faults.lost === true) {
          throw new HeddleError("device-lost", "lost");
        }
        const steps = Math.min(stepsMax, faults.steps ?? 3);
        asked.push({ from: from[0] as number, first: firstStep, steps: stepsMax, assignment: id });
        const losses = Array.from({ length: steps }, () => 1);
        const params = from.map((value) => value - steps);
        const onEngine = {
          pack: async (feed: Feed) => packOnHost(feed, params),
          parameters: async () => {
            await faults.readBack?.();
            return params;
          },
        };
        return { after: onEngine, losses, steps, tokens: 10 * steps };
      },
      validate: async ({ id }, base, { values }) => {
        checked.push([id, base[0], values.length]);
        return { assignedBefore: 2, assignedAfter: 1, randomBefore: 2, randomAfter: 1 };
      },
      moments: async () => null,
      restore: async () => undefined,
      [Symbol.dispose]: () => undefined,
    }),
    onEngine: () => undefined,
    onTrouble: (reason) => troubles.push(reason),
  });
  served.set(shard.digest, new Uint8Array(1));
  if (faults.unreadable === true) {
    await expect(desk.prepare(0)).rejects.toThrow("busy");
    faults.unreadable = false;
  }
  await desk.prepare(0);
  const hold = async (version: number, value: number): Promise<Digest> => {
    const params = new Float32Array(P).fill(value);
    const digest = digestOf(floatBytes(params));
    served.set(digest, floatBytes(params));
    const head: VersionInfo = { version, digest, parent: null, update: null, checkpointBytes: 4 * P, evalLoss: 1 };
    await desk.fetch(head, []);
    return digest;
  };
  const train = async (version: number, value: number): Promise<Sent> => {
    const baseDigest = await hold(version, value);
    const id = `t${version}`;
    const { keep } = charter.uplink;
    const work = {
      id,
      round: version + 1,
      baseVersion: version,
      baseDigest,
      seed: 1,
      stepsMax: 6,
      keep,
      trainMs: 9_000,
    };
    const pending = await desk.train({ type: "train", ...work }, job);
    return sentBy(desk, pending as Pending);
  };
  const settle = (sent: Sent, outcome: Outcome): Promise<void> => desk.settle(sent.pending.id, outcome);
  return { desk, asked, checked, troubles, train, settle, hold, served };
}

interface Sent {
  readonly pending: Pending;
  readonly header: ContributionHeader;
  readonly entries: number;
  /** What the update takes from the first parameter that it has. */
  readonly value: number;
}

function sentBy(desk: Desk, pending: Pending): Sent {
  const message = decodeContributorMessage(desk.messageOf(pending.id) as Bytes);
  if (!message.ok || message.value.type !== "contribute") {
    throw new Error("no contribution");
  }
  const header = decodeHeader(message.value.header);
  const update = unpackUpdate(message.value.payload, { parameters: P, keepMax: 4096 });
  if (!header.ok || !update.ok) {
    throw new Error("an unreadable contribution");
  }
  const { values } = update.value;
  return { pending, header: header.value, entries: values.length, value: values[0] as number };
}

describe("createDesk()", () => {
  test.each([1, 0.5])("adds %f of what was trained ahead to the next base, and counts its steps", async (share) => {
    const { desk, asked, train, settle } = await deskOf(share);
    const first = await train(0, 100);
    expect(first).toMatchObject({ header: { steps: 3, ahead: 0, tokens: 30 }, value: 3 });
    expect(await desk.goAhead(5, job)).toBe(3);
    expect(await desk.goAhead(5, job)).toBe(5);
    await settle(first, "accepted");
    const second = await train(1, 90);
    expect(asked.map(({ first: firstStep, steps, from }) => [firstStep, steps, from])).toEqual([
      [undefined, 6, 100],
      [3, 5, 97],
      [6, 2, 94],
      [undefined, 1, 90 - 5 * share],
    ]);
    expect(asked[2]?.assignment).toBe("t0");
    expect(second).toMatchObject({ header: { steps: 1, ahead: 5, tokens: 60 }, value: 5 * share + 1 });
    expect(second.pending.steps).toBe(6);
  });

  test("checks what was fetched for an assignment, and for no other", async () => {
    const { desk, checked, train, hold, served } = await deskOf(0);
    const { pending } = await train(0, 100);
    const message = decodeContributorMessage(desk.messageOf(pending.id) as Bytes);
    const payload = message.ok && message.value.type === "contribute" ? message.value.payload : new Uint8Array();
    const { digest, bytes } = { digest: digestOf(payload), bytes: payload.length };
    served.set(digest, payload);
    const baseDigest = await hold(0, 100);
    const check = (id: string) =>
      ({ id, baseDigest, contribution: pending.id, payload: { digest, bytes } }) as ValidateAssignment;
    expect(await desk.validate(check("a"), job)).toBeNull();
    const early = desk.supply(check("a"));
    await desk.supply(check("b"));
    await early; // comes when another is wanted
    expect(await desk.validate(check("a"), job)).toBeNull();
    expect(await desk.validate(check("b"), job)).not.toBeNull();
    expect(checked).toEqual([["b", 100, P]]);
    await expect(
      desk.supply({ ...check("c"), payload: { digest: baseDigest.replace(/./, "z") as Digest, bytes } }),
    ).rejects.toThrow("gone");
  });

  test("goes on from what it has not sent, as faded as that is in what it sends", async () => {
    const { asked, train, settle } = await deskOf(0, {
      uplink: { ...exact, beta: 0.5, together: 0, carry: true },
    });
    await settle(await train(0, 100), "kept"); // 3 are left
    const second = await train(1, 90);
    expect([asked.at(-1)?.from, second.value]).toEqual([90 - 1.5, 1.5 + 3]);
    await settle(second, "kept");
    const third = await train(4, 80); // two rounds without it
    expect([asked.at(-1)?.from, third.value]).toEqual([80 - 4.5 / 8, 4.5 / 8 + 3]);
    await settle(third, "accepted");
    await settle(await train(5, 70), "discarded");
    await train(6, 60);
    expect(asked.slice(-2).map(({ from }) => from)).toEqual([70, 60]);
  });

  test("begins without what it has not sent once engines have failed twice from it", async () => {
    const { desk, asked, train, settle } = await deskOf(0, {
      uplink: { ...exact, beta: 1, together: 0, carry: true },
    });
    await settle(await train(0, 100), "kept"); // 3 are left
    await desk.prepare(1);
    await settle(await train(1, 90), "kept"); // 6
    await desk.prepare(2);
    await train(2, 80);
    expect(asked.slice(1).map(({ from }) => from)).toEqual([90 - 3, 80]);
  });

  test("waits for a verdict that is on its way into the notebook before it goes on from what is left", async () => {
    const { asked, train, settle } = await deskOf(0, {
      uplink: { ...exact, beta: 0.5, together: 0, carry: true },
    });
    const first = await train(0, 100);
    const second = await train(1, 90); // the first has no verdict yet
    void settle(first, "accepted");
    void settle(second, "kept"); // 3 are left
    const third = await train(2, 80);
    expect([asked.at(-1)?.from, third.value]).toEqual([80 - 1.5, 1.5 + 3]);
  });

  test("sends more of its first contributions, where the charter says so", async () => {
    const { train, settle } = await deskOf(1, {
      uplink: { ...exact, keep: 2, together: 0, carry: false },
      newcomers: { contributions: 2, keep: 4 },
    });
    const entries: number[] = [];
    for (let version = 0; version < 4; version += 1) {
      const sent = await train(version, 100 - version);
      entries.push(sent.entries);
      await settle(sent, version === 2 ? "kept" : "accepted");
    }
    expect(entries).toEqual([4, 4, 2, 2]);
  });

  test("trains from the base where steps ahead were lost with their engine, or given up while they were read back", async () => {
    const faults: Faults = {};
    const { desk, asked, train, settle } = await deskOf(1, {}, faults);
    const first = await train(0, 100);
    expect(await desk.goAhead(5, job)).toBe(3);
    faults.lost = true;
    await expect(desk.goAhead(5, job)).rejects.toThrow("lost");
    faults.lost = false;
    await desk.prepare(1);
    await settle(first, "accepted");
    const second = await train(1, 90);
    expect([second.header.ahead, asked.at(-1)?.from]).toEqual([0, 90]);
    faults.readBack = () => settle(second, "discarded");
    expect(await desk.goAhead(5, job)).toBeNull();
    await train(2, 80);
    expect(asked.at(-1)?.from).toBe(80);
  });

  test("hands in what is signed, also where its parameters cannot be read back", async () => {
    const { desk, train } = await deskOf(1, {}, { readBack: () => Promise.reject(new Error("no room")) });
    expect((await train(0, 100)).value).toBe(3);
    expect(await desk.goAhead(5, job)).toBeNull();
  });

  test("does not go ahead where a step takes so long that an assignment would wait for it", async () => {
    const { desk, train } = await deskOf(1, {}, { steps: 2 });
    await train(0, 100);
    expect(await desk.goAhead(5, job)).toBeNull();
  });

  test("reads a notebook again that could not be read, and fetches the checkpoint where an update is missing", async () => {
    const { desk, hold, served } = await deskOf(1, {}, { unreadable: true });
    const parent = await hold(0, 1);
    const digest = await hold(9, 2);
    await hold(0, 1);
    const update = { digest: digestOf(new Uint8Array(9)), bytes: 9 };
    expect(served.has(update.digest)).toBe(false);
    await desk.fetch({ version: 1, digest, parent, update, checkpointBytes: 4 * P, evalLoss: 1 }, []);
    expect(desk.base()?.params[0]).toBe(2);
  });

  test("is prepared where a text on its disk is damaged, and where the disk has no room for one", async () => {
    for (const faults of [{ damaged: shard.digest }, { full: true }]) {
      const { train } = await deskOf(1, { train: [data] }, faults); // prepares
      expect(await train(0, 10)).toBeDefined();
    }
  });

  test("throws away what leads past the next version, and what follows work that was found harmful", async () => {
    const { desk, asked, train, settle } = await deskOf(1);
    await train(0, 100);
    await desk.goAhead(5, job);
    const later = await train(2, 80);
    expect(asked.at(-1)?.from).toBe(80);
    expect(later.header.ahead).toBe(0);
    await desk.goAhead(5, job);
    const settling = settle(later, "discarded"); // holds at once, whatever is being written
    expect(await desk.goAhead(5, job)).toBeNull();
    await settling;
    await train(3, 70);
    expect(asked.at(-1)?.from).toBe(70);
  });
});

test.each([
  [1, 6],
  [0.5, 6],
  [0.2, undefined],
])("a desk with terms counts what was trained ahead as far as %f of it is sent", async (share, steps) => {
  const { desk, hold } = await deskOf(share, { uplink: sample.uplink }, { terms: { steps: 4, tokens: 1 }, steps: 4 });
  const train = async (version: number) => {
    const place = { id: `t${version}`, round: version + 1, baseVersion: version, baseDigest: await hold(version, 5) };
    return desk.train({ type: "train", ...place, seed: 1, keep: 1, trainMs: 9_000, stepsMax: 6 }, job);
  };
  const first = await train(0);
  expect(await desk.goAhead(5, job)).toBe(4);
  await desk.settle((first as Pending).id, "accepted");
  expect((await train(1))?.steps).toBe(steps);
});

test("a desk with terms trains for no charter or assignment that asks too little, and keeps what came out too small", async () => {
  const terms = { steps: 4, tokens: 1 };
  await expect(deskOf(1, {}, { terms })).rejects.toThrow("exact values");
  const { desk, asked, troubles, hold } = await deskOf(1, { uplink: sample.uplink }, { terms });
  const baseDigest = await hold(0, 5);
  const work = {
    type: "train",
    id: "t",
    round: 1,
    baseVersion: 0,
    baseDigest,
    seed: 1,
    keep: 1,
    trainMs: 9_000,
  } as const;
  await expect(desk.train({ ...work, stepsMax: 3 }, job)).rejects.toMatchObject({ code: "consent" });
  expect(asked).toEqual([]);
  expect(await desk.train({ ...work, stepsMax: 6 }, job)).toBeNull();
  expect(asked.length).toBe(1);
  expect(troubles).toEqual([expect.stringContaining("3 steps")]);
  const stopped = createStop();
  stopped.end();
  expect(await desk.train({ ...work, stepsMax: 6 }, { ...job, signal: stopped })).toBeNull(); // says nothing of the device
  expect(await desk.train({ ...work, stepsMax: 6 }, job)).toBeNull();
  const third = desk.train({ ...work, stepsMax: 6 }, job);
  await expect(third).rejects.toMatchObject({ code: "consent", message: expect.stringContaining("3 steps") });
});
