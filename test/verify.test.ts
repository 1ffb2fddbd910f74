/**
 * Verifying a run from outside: a little run, its ledger and its blobs as a relay would serve them, and what is found when they
 * are as they were, when they are no longer kept, and when a single bit of them was flipped or the relay lied.
 */
import { beforeAll, describe, expect, test } from "vitest";
import { digestOf, type Bytes, type Digest } from "../src/base/bytes.ts";
import { HeddleError } from "../src/base/assert.ts";
import type { Finding } from "../src/coordinator/finding.ts";
import { verifyRun, type SeenEntry } from "../src/coordinator/verify.ts";
import { appendEntry, decodeEntry, EMPTY_CHAIN, type SignedEntry } from "../src/protocol/chain.ts";
import { decodeHeader } from "../src/protocol/codec.ts";
import type { LedgerEvent } from "../src/protocol/ledger.ts";
import type { VerifySignature } from "../src/protocol/keys.ts";
import { createKeyRegistry } from "../src/sim/keys.ts";
import type { OpenCrew } from "../src/update/crew.ts";
import { soloCrew } from "../src/update/solo.ts";
import { loadMergeKernel } from "../src/wasm/merge.ts";
import { littleCharter, startLittleRun, type LittleRun } from "./fixtures/little-run.ts";

/** More than the updates that are kept, so that version 0 is out of reach. */
const VERSIONS = 18;
const EARLY = 4;

/** What a relay serves. */
interface Served {
  readonly entries: readonly Bytes[];
  readonly blobs: ReadonlyMap<Digest, Bytes>;
}

let early: Served;
let late: Served;
let openCrew: OpenCrew;
let verify: VerifySignature;

async function served({ host, store }: LittleRun): Promise<Served> {
  await host.settled();
  const blobs = new Map<Digest, Bytes>();
  for (const digest of await store.blobs.list()) {
    if (host.isPublic(digest)) {
      blobs.set(digest, (await store.blobs.get(digest)) as Bytes);
    }
  }
  return { entries: await store.log.read(0, await store.log.length()), blobs };
}

beforeAll(async () => {
  openCrew = soloCrew(await loadMergeKernel());
  const charter = littleCharter();
  const run = await startLittleRun({
    ...charter,
    round: { ...charter.round, stepsMax: 1 },
    // So that outer states differ from version to version.
    outer: { ...charter.outer, learningRate: 0.7, momentum: 0.9 },
  });
  ({ verify } = run);
  run.contributor.start();
  await run.until(() => run.host.head().version >= EARLY);
  early = await served(run);
  await run.until(() => run.host.head().version >= VERSIONS);
  late = await served(run);
});

async function look(served: Served, changes: { seen?: SeenEntry; verify?: null } = {}) {
  const sentences: string[] = [];
  const verification = await verifyRun({
    fetchLedger: async (from) => ({ entries: served.entries.slice(from, from + 50), length: served.entries.length }),
    fetchBlob: async (digest, bytesMax) => {
      const bytes = served.blobs.get(digest);
      if (bytes === undefined) {
        throw new HeddleError("absent", "the relay does not have it");
      }
      if (bytes.length > bytesMax || digestOf(bytes) !== digest) {
        throw new HeddleError("integrity", "the bytes that arrived have another digest");
      }
      return bytes;
    },
    verify: changes.verify === null ? null : verify,
    openCrew,
    seen: changes.seen ?? null,
    tell: ({ sentence, done, total }) => {
      expect(done).toBeLessThanOrEqual(total);
      sentences.push(sentence);
    },
  });
  return { ...verification, sentences };
}

const of = (findings: readonly Finding[], state: Finding["state"]): string[] =>
  findings.filter((one) => one.state === state).map(({ subject }) => subject);
const sentenceOf = (findings: readonly Finding[], subject: Finding["subject"], state: Finding["state"]): string =>
  findings.find((one) => one.subject === subject && one.state === state)?.sentence ?? "";
const differing = (findings: readonly Finding[]): Finding[] => findings.filter(({ state }) => state === "differs");

function events(served: Served): SignedEntry[] {
  return served.entries.map((bytes) => {
    const read = decodeEntry(bytes);
    if (!read.ok) {
      throw new Error(read.detail);
    }
    return read.value;
  });
}

function entryWhere(served: Served, fits: (event: LedgerEvent) => boolean): SignedEntry {
  return events(served).find(({ event }) => fits(event)) as SignedEntry;
}

const mergeOf = (served: Served, version: number) => {
  const entry = entryWhere(served, (event) => event.type === "merged" && event.head.version === version);
  return { ...entry, event: entry.event as Extract<LedgerEvent, { type: "merged" }> };
};

function flipped(bytes: Bytes, at: number): Bytes {
  const changed = bytes.slice();
  changed[at] = (changed[at] as number) ^ 1;
  return changed;
}

function withBlob(served: Served, digest: Digest, change: (bytes: Bytes) => Bytes): Served {
  return { ...served, blobs: new Map(served.blobs).set(digest, change(served.blobs.get(digest) as Bytes)) };
}

/** The same history as the relay would have signed it with other events: every signature and digest holds. */
async function rewritten(served: Served, change: (event: LedgerEvent) => LedgerEvent): Promise<Served> {
  const key = createKeyRegistry().create("relay");
  const entries: Bytes[] = [];
  let chain = EMPTY_CHAIN;
  for (const { event, timeMs } of events(served)) {
    const appended = await appendEntry(chain, change(event), { timeMs, key });
    entries.push(appended.bytes);
    chain = appended.chain;
  }
  return { ...served, entries };
}

describe("verifyRun()", () => {
  test("does a merge again with what came a round late, for the share of its weight", async () => {
    const charter = littleCharter();
    const round = { ...charter.round, stepsMax: 2, trainMs: 4_000, graceMs: 2_000, lateShare: 0.25 };
    // The first one comes between its round, in which nothing else came, and the next.
    const run = await startLittleRun({ ...charter, round }, { travelsMs: (before) => (before === 0 ? 7_000 : 100) });
    run.contributor.start();
    await run.until(() => run.host.head().version === 1);
    run.contributor.pause();
    const here = await served(run);
    const { event } = mergeOf(here, 1);
    expect([event.round, event.contributions.length]).toEqual([2, 2]);
    const { findings } = await look(here);
    expect(differing(findings)).toEqual([]);
    expect(sentenceOf(findings, "merges", "agrees")).toContain("version 1, done again here from 2 contributions");
  });

  test("does a young run again from its charter: every version, and every merge whose payloads are kept", async () => {
    const { findings, run, last, relay, sentences } = await look(early);
    expect(differing(findings)).toEqual([]);
    expect(sentenceOf(findings, "versions", "agrees")).toContain("version 0, made from the charter");
    expect(sentenceOf(findings, "versions", "agrees")).toContain(`versions 1 to ${EARLY}`);
    expect(sentenceOf(findings, "merges", "agrees")).toContain(`versions 1 to ${EARLY}`);
    expect(of(findings, "unchecked")).toEqual(["training"]);
    expect(last).toEqual({ entry: early.entries.length - 1, digest: digestOf(early.entries.at(-1) as Bytes) });
    expect(entryWhere(early, ({ type }) => type === "started").event).toMatchObject({ run });
    expect(relay).toMatch(/^[0-9a-f]{64}$/);
    expect(sentences.some((sentence) => sentence.startsWith("Merging version 2 again"))).toBe(true);
  });

  test("does the newest versions of an older run again, and says which are out of reach", async () => {
    const { findings } = await look(late);
    expect(differing(findings)).toEqual([]);
    const from = VERSIONS - 2;
    expect(sentenceOf(findings, "checkpoints", "agrees")).toContain(`versions ${from} to ${VERSIONS}`);
    expect(sentenceOf(findings, "updates", "agrees")).toContain(`versions 3 to ${VERSIONS}`);
    expect(sentenceOf(findings, "versions", "agrees")).toContain(`versions ${from + 1} and ${VERSIONS}`);
    expect(sentenceOf(findings, "merges", "agrees")).toContain(`versions ${from + 1} and ${VERSIONS}`);
    expect(sentenceOf(findings, "merges", "unchecked")).toContain(`versions 1 to ${from}.`);
  });

  test("names the entry in which a bit was flipped, whichever it is", async () => {
    const at = Math.floor(early.entries.length / 2);
    const bytes = early.entries[at] as Bytes;
    for (let bit = 0; bit < bytes.length; bit += 7) {
      const { findings } = await look({ ...early, entries: early.entries.with(at, flipped(bytes, bit)) });
      expect(differing(findings)).toMatchObject([{ subject: "ledger", entry: at }]);
      expect(differing(findings)[0]?.sentence).toContain(`Entry ${at} does not hold`);
    }
  });

  test("names the version whose update, checkpoint, outer state or payload is not the one in the ledger", async () => {
    const version = VERSIONS - 1;
    const { sequence, event } = mergeOf(late, version);
    const before = mergeOf(late, version - 1);
    const update = event.head.update?.digest as Digest;
    const cases = [
      { digest: update, subject: "updates", entry: sequence, what: `the update of version ${version}` },
      {
        digest: event.head.digest,
        subject: "checkpoints",
        entry: sequence,
        what: `the checkpoint of version ${version}`,
      },
      { digest: before.event.server, subject: "checkpoints", entry: before.sequence, what: "the outer state" },
    ] as const;
    for (const { digest, subject, entry, what } of cases) {
      for (const at of [0, 21, 40]) {
        const { findings } = await look(withBlob(late, digest, (bytes) => flipped(bytes, at % bytes.length)));
        expect(differing(findings), what).toMatchObject([{ subject, entry }]);
        expect(differing(findings)[0]?.sentence).toContain(what);
        expect(differing(findings)[0]?.sentence).toContain(digest);
      }
    }
    const [id] = event.contributions;
    const sent = entryWhere(late, (one) => one.type === "contributed" && one.contribution === id);
    const payload = payloadOf(sent);
    const { findings } = await look(withBlob(late, payload, (bytes) => flipped(bytes, bytes.length - 1)));
    expect(differing(findings)).toMatchObject([{ subject: "merges", entry: sent.sequence }]);
  });

  test("finds a relay out that signs what is not so", async () => {
    const version = 3;
    const [id] = mergeOf(early, version).event.contributions;
    const louder = await rewritten(early, (event) =>
      event.type === "contributed" && event.contribution === id ? { ...event, norm: event.norm * 1.5 } : event,
    );
    expect(differing((await look(louder)).findings)[0]?.sentence).toContain("norm is said to be");

    // A merge that did something else: version 3's update is version 2's, and everything that follows from it agrees.
    const two = mergeOf(early, 2).event.head.update;
    const other = await rewritten(early, (event) =>
      event.type === "merged" && event.head.version === version
        ? { ...event, head: { ...event.head, update: two } }
        : event,
    );
    const found = differing((await look(other)).findings);
    expect(found).toMatchObject([{ subject: "versions", entry: mergeOf(early, version).sequence }]);
    expect(found[0]?.sentence).toContain(`version ${version} has the digest`);

    const author = entryWhere(early, (event) => event.type === "introduced");
    const forged = await rewritten(early, (event) =>
      event.type === "contributed" && event.contribution === id
        ? { ...event, signature: flipped(event.signature, 3) }
        : event,
    );
    const sentence = differing((await look(forged)).findings)[0]?.sentence;
    expect(sentence).toContain("the contribution's signature is not that of its author");
    expect(sentence).toContain(author.event.type === "introduced" ? author.event.contributor : "nobody");

    const unfair = await rewritten(early, (event) =>
      event.type === "merged" && event.head.version === version
        ? { ...event, contributions: [two?.digest as never] }
        : event,
    );
    expect(differing((await look(unfair)).findings)[0]?.sentence).toContain("is not merged from the 1 accepted");
  });

  test("notices a history that was written anew, or cut, since it was seen", async () => {
    const entry = 10;
    const seen = { entry, digest: digestOf(early.entries[entry] as Bytes) };
    expect(sentenceOf((await look(late, { seen })).findings, "memory", "agrees")).toContain("Entry 10");
    const anew = await rewritten(late, (event) =>
      event.type === "opened" ? { ...event, seed: event.seed >>> 1 } : event,
    );
    expect(differing((await look(anew, { seen })).findings)[0]).toMatchObject({ subject: "memory", entry });
    const cut = { ...early, entries: early.entries.slice(0, entry) };
    expect(differing((await look(cut, { seen })).findings)[0]?.sentence).toContain("does not reach it now");
  });

  test("calls unchecked what the relay no longer has, and signatures where there is no Ed25519", async () => {
    const [start] = events(early);
    const run = start?.event.type === "started" ? start.event.run : null;
    const charterless = { ...early, blobs: new Map([...early.blobs].filter(([digest]) => digest !== run)) };
    const { findings } = await look(charterless, { verify: null });
    expect(differing(findings)).toEqual([]);
    expect(of(findings, "unchecked")).toEqual(["signatures", "charter", "training"]);
    const bare = await look({ ...late, blobs: new Map([[run as Digest, late.blobs.get(run as Digest) as Bytes]]) });
    expect(differing(bare.findings)).toEqual([]);
    expect(sentenceOf(bare.findings, "versions", "unchecked")).toContain(`versions 1 to ${VERSIONS}.`);
  });
});

function payloadOf({ event }: SignedEntry): Digest {
  const header = event.type === "contributed" ? decodeHeader(event.header) : null;
  return header?.ok === true ? header.value.payload.digest : ("" as Digest);
}
