/**
 * Doing a run's versions again from what its relay still serves: each update applied to the base before it, and each merge
 * done by the code and the kernel of a relay, compared with the digests in the ledger. The ledger itself is checked before
 * (`check.ts`); nothing else is believed. Blobs come one at a time and all have their limit, so that memory is a few times
 * the model's. What is no longer kept is said to be unchecked, and is no fault.
 */
import { assert, AssertionError, HeddleError } from "../base/assert.ts";
import { bytesToFloats, digestOf, floatBytes, type Bytes, type Digest } from "../base/bytes.ts";
import { initialParameters, parameterLayout } from "../model/layout.ts";
import type { FetchBlob } from "../net/link.ts";
import { decodeCharter } from "../protocol/charter-codec.ts";
import type { Charter } from "../protocol/charter.ts";
import { CHARTER_BYTES_MAX, UPDATES_KEPT } from "../protocol/limits.ts";
import { applyUpdate, updateNorm } from "../update/delta.ts";
import type { Crew, OpenCrew } from "../update/crew.ts";
import { serverBytesOf } from "../protocol/capacity.ts";
import { createServerState, serverFromBytes, type ServerState } from "../update/outer.ts";
import { unpackUpdate } from "../update/unpack.ts";
import { takeStep, unpackPayload } from "./base.ts";
import type { LedgerCheck, MergeRecord } from "./check.ts";
import { finding, nameVersions, plural, type Finding, type Progress, type Subject } from "./finding.ts";
import { CHECKPOINTS_KEPT, ROUNDS_KEPT, type DurableState } from "./state.ts";

/** Parameters of a model whose versions are done again: about 40 bytes of memory each. */
export const REPLAY_PARAMETERS_MAX = 2 ** 25;

export interface ReplayPorts {
  readonly fetchBlob: FetchBlob;
  readonly openCrew: OpenCrew;
  readonly tell: (progress: Progress) => void;
}

/** A blob, or why it is not at hand. */
type Fetched =
  | { readonly type: "bytes"; readonly bytes: Bytes }
  | { readonly type: "gone" }
  /** The relay serves other bytes under this digest. */
  | { readonly type: "differs" };

/** Does again what can be done of a checked ledger that has begun. Rejects only for a bug. */
export async function replay(check: LedgerCheck, ports: ReplayPorts): Promise<readonly Finding[]> {
  const { durable, merges } = check;
  assert(durable !== null, "Cannot replay: the ledger has no entries");
  const charter = await readCharter(durable, ports);
  if (charter.state !== "agrees") {
    return [charter.finding];
  }
  const work = new Replay({ charter: charter.charter, durable, merges, ports });
  await work.run();
  return [charter.finding, ...work.findings()];
}

type ReadCharter =
  | { readonly state: "agrees"; readonly charter: Charter; readonly finding: Finding }
  | { readonly state: "other"; readonly finding: Finding };

async function readCharter({ run, head }: DurableState, { fetchBlob }: ReplayPorts): Promise<ReadCharter> {
  const fetched = await fetchAs(fetchBlob, run, CHARTER_BYTES_MAX);
  if (fetched.type === "gone") {
    const sentence = "The relay does not serve the charter that entry 0 names; without it nothing can be done again.";
    return { state: "other", finding: finding("charter", "unchecked", sentence, { entry: 0 }) };
  }
  const decoded = fetched.type === "bytes" ? decodeCharter(fetched.bytes) : null;
  if (decoded?.ok !== true) {
    const sentence = `Entry 0 names the charter ${run}; what the relay serves under this name is not it.`;
    return { state: "other", finding: finding("charter", "differs", sentence, { entry: 0 }) };
  }
  const parameters = parameterLayout(decoded.value.model).size;
  if (parameters * 4 !== head.checkpointBytes) {
    const sentence = `The charter's model has ${plural(parameters, "parameter")}; the ledger's versions have ${head.checkpointBytes / 4}.`;
    return { state: "other", finding: finding("charter", "differs", sentence, { entry: 0 }) };
  }
  if (parameters > REPLAY_PARAMETERS_MAX) {
    const sentence = `The model has ${plural(parameters, "parameter")}, too many to do its versions again here (at most ${REPLAY_PARAMETERS_MAX.toLocaleString("en")}).`;
    return { state: "other", finding: finding("charter", "unchecked", sentence) };
  }
  const sentence = "The charter that the relay serves is the one that the ledger began with.";
  return { state: "agrees", charter: decoded.value, finding: finding("charter", "agrees", sentence) };
}

interface ReplayFacts {
  readonly charter: Charter;
  readonly durable: DurableState;
  /** Of the newest versions, oldest first. */
  readonly merges: readonly MergeRecord[];
  readonly ports: ReplayPorts;
}

/** Where the replay stands: the base, and the outer state that belongs to it where that is known. */
interface Standing {
  readonly version: number;
  readonly params: Float32Array<ArrayBuffer>;
  readonly server: ServerState | null;
}

/** Stops a merge whose payload cannot be used. */
class PayloadStop extends Error {
  readonly outcome: Finding | null;
  constructor(outcome: Finding | null) {
    super("Cannot do a merge again");
    this.outcome = outcome;
  }
}

/** One replay; a class because it holds the crew's memory and what was found so far. */
class Replay {
  readonly #facts: ReplayFacts;
  readonly #parameters: number;
  readonly #crew: Crew;
  readonly #differs: Finding[] = [];
  /** Versions of which each was seen to agree. */
  readonly #agrees = {
    checkpoints: [] as number[],
    updates: [] as number[],
    versions: [] as number[],
    merges: [] as number[],
  };
  #from: number | null = null;
  #contributions = 0;
  #done = 0;

  constructor(facts: ReplayFacts) {
    this.#facts = facts;
    this.#parameters = facts.durable.head.checkpointBytes / 4;
    this.#crew = facts.ports.openCrew();
  }

  async run(): Promise<void> {
    const { merges } = this.#facts;
    // What the relay forgets next comes first: it goes on merging meanwhile.
    let standing = await this.#start();
    const updates = new Map<number, Bytes>();
    for (const record of merges) {
      await this.#fetchUpdate(record, updates);
    }
    this.#from = standing?.version ?? null;
    for (const record of merges) {
      if (standing !== null && record.event.head.version === standing.version + 1) {
        standing = await this.#follow(standing, record, updates.get(record.event.head.version));
      }
    }
    for (const { version, digest, checkpointBytes } of this.#keptHeads()) {
      if (!this.#agrees.checkpoints.includes(version)) {
        this.#tell(`Fetching the checkpoint of version ${version}`);
        this.#note("checkpoints", version, await this.#fetch(digest, checkpointBytes));
      }
    }
  }

  /** Version 0 made from the charter, where all updates since are kept; else the oldest checkpoint that is. */
  async #start(): Promise<Standing | null> {
    const { charter, durable, merges } = this.#facts;
    const first = merges[0]?.event.head.parent ?? durable.head.digest;
    if (merges.length === durable.head.version) {
      this.#tell("Making version 0 from the charter");
      const params = initialParameters(charter.model);
      // Where the logarithm of this machine rounds otherwise it is not version 0: then its checkpoint has to do.
      if (digestOf(floatBytes(params)) === first) {
        this.#agrees.versions.push(0);
        return { version: 0, params, server: createServerState(this.#parameters) };
      }
    }
    for (const { version, digest, checkpointBytes } of this.#keptHeads()) {
      this.#tell(`Fetching the checkpoint of version ${version}`);
      const fetched = await this.#fetch(digest, checkpointBytes);
      this.#note("checkpoints", version, fetched);
      if (fetched.type === "bytes" && fetched.bytes.length === checkpointBytes) {
        const server = version === 0 ? createServerState(this.#parameters) : await this.#fetchServer(version);
        return { version, params: bytesToFloats(fetched.bytes), server };
      }
    }
    return null;
  }

  #keptHeads() {
    return this.#facts.durable.heads.slice(-CHECKPOINTS_KEPT);
  }

  async #fetchServer(version: number): Promise<ServerState | null> {
    const record = this.#facts.merges.find(({ event }) => event.head.version === version);
    if (record === undefined || version <= this.#facts.durable.head.version - CHECKPOINTS_KEPT) {
      return null;
    }
    this.#tell(`Fetching the outer state of version ${version}`);
    const fetched = await this.#fetch(record.event.server, serverBytesOf(this.#parameters, 2));
    if (fetched.type === "gone") {
      return null;
    }
    const state = fetched.type === "bytes" ? serverFromBytes(fetched.bytes, this.#parameters) : null;
    if (state?.ok !== true) {
      const sentence = `Entry ${record.entry} names ${record.event.server} as the outer state of version ${version}; what the relay serves under this name is not it.`;
      this.#differs.push(finding("checkpoints", "differs", sentence, { entry: record.entry }));
      return null;
    }
    return state.value;
  }

  async #fetchUpdate({ event: { head } }: MergeRecord, updates: Map<number, Bytes>): Promise<void> {
    const { update, version } = head;
    if (update !== null) {
      this.#tell(`Fetching the update of version ${version}`);
      const fetched = await this.#fetch(update.digest, update.bytes);
      this.#note("updates", version, fetched);
      if (fetched.type === "bytes") {
        updates.set(version, fetched.bytes);
      }
    }
  }

  /** The next version by its update, and by its merge; null where the chain of versions ends. */
  async #follow(before: Standing, record: MergeRecord, update: Bytes | undefined): Promise<Standing | null> {
    const { head } = record.event;
    const { downlink } = this.#facts.charter;
    this.#tell(`Doing version ${head.version} again`);
    if (update === undefined) {
      return null;
    }
    const limits = { parameters: this.#parameters, keepMax: downlink.keep, bits: downlink.bits };
    const unpacked = unpackUpdate(update, limits);
    if (!unpacked.ok) {
      this.#differ("updates", record, `the update of version ${head.version} cannot be read: ${unpacked.detail}`);
      return null;
    }
    const params = applyUpdate(before.params, unpacked.value);
    const digest = digestOf(floatBytes(params));
    if (digest !== head.digest) {
      this.#differ(
        "versions",
        record,
        `version ${head.version} has the digest ${head.digest}; its update applied to version ${before.version} gives ${digest}`,
      );
      return null;
    }
    this.#agrees.versions.push(head.version);
    const server = before.server === null ? null : await this.#merge({ ...before, server: before.server }, record);
    return { version: head.version, params, server: server ?? (await this.#fetchServer(head.version)) };
  }

  /** The outer state after the merge; null where it cannot be done again, or differs. */
  async #merge(
    { params, server }: Standing & { server: ServerState },
    record: MergeRecord,
  ): Promise<ServerState | null> {
    const { charter } = this.#facts;
    const { event, contributions } = record;
    const { version, digest, update } = event.head;
    this.#tell(`Merging version ${version} again from ${plural(contributions.length, "contribution")}`);
    const read = (payload: Digest): Promise<Bytes> => this.#readPayload(record, payload);
    try {
      const options = { crew: this.#crew, charter, round: event.round, version, contributions, read };
      const { base, broadcast } = await takeStep({ params, server }, options);
      const pairs = [
        ["the update", digestOf(broadcast), update?.digest],
        ["the base", digestOf(floatBytes(base.params)), digest],
        ["the outer state", digestOf(base.server.bytes), event.server],
      ];
      const wrong = pairs.find(([, made, written]) => made !== written);
      if (wrong !== undefined) {
        this.#differ(
          "merges",
          record,
          `merging its contributions again gives ${wrong[0]} of version ${version} as ${wrong[1]}; the ledger says ${wrong[2]}`,
        );
        return null;
      }
      this.#agrees.merges.push(version);
      this.#contributions += contributions.length;
      return base.server;
    } catch (error) {
      if (error instanceof PayloadStop) {
        this.#differs.push(...(error.outcome === null ? [] : [error.outcome]));
        return null;
      }
      if (error instanceof HeddleError && error.code === "limit") {
        return null; // this machine has not the memory
      }
      if (error instanceof AssertionError) {
        this.#differ("merges", record, `the contributions of version ${version} cannot be merged: ${error.message}`);
        return null;
      }
      throw error;
    }
  }

  /** A contribution's payload that is what its header says, with the norm that the ledger says. */
  async #readPayload({ contributions }: MergeRecord, payload: Digest): Promise<Bytes> {
    const contribution = contributions.find(({ header }) => header.payload.digest === payload);
    assert(contribution !== undefined, `Cannot read payload: ${payload} is of no contribution`);
    const { entry, norm, header } = contribution;
    const stop = (what: string): PayloadStop =>
      new PayloadStop(finding("merges", "differs", `Entry ${entry}: ${what}.`, { entry }));
    const fetched = await this.#fetch(payload, header.payload.bytes);
    if (fetched.type === "gone") {
      throw new PayloadStop(null);
    }
    if (fetched.type === "differs") {
      throw stop(`the contribution's payload is ${payload}; what the relay serves under this name is not it`);
    }
    const unpacked = unpackPayload(fetched.bytes, this.#parameters, this.#facts.charter);
    if (!unpacked.ok) {
      throw stop(`the contribution was accepted, and its payload cannot be read: ${unpacked.detail}`);
    }
    const found = updateNorm(unpacked.value);
    if (found !== norm) {
      throw stop(`the contribution's norm is said to be ${norm}; its payload has ${found}`);
    }
    return fetched.bytes;
  }

  #fetch(digest: Digest, bytesMax: number): Promise<Fetched> {
    return fetchAs(this.#facts.ports.fetchBlob, digest, bytesMax);
  }

  #note(subject: "checkpoints" | "updates", version: number, fetched: Fetched): void {
    if (fetched.type === "bytes") {
      this.#agrees[subject].push(version);
    } else if (fetched.type === "differs") {
      const { durable, merges } = this.#facts;
      const entry = merges.find(({ event }) => event.head.version === version)?.entry ?? 0;
      const head = durable.heads.find((one) => one.version === version);
      const digest = subject === "updates" ? head?.update?.digest : head?.digest;
      const what = subject === "updates" ? "update" : "checkpoint";
      const sentence = `Entry ${entry} names ${digest} as the ${what} of version ${version}; what the relay serves under this name is not it.`;
      this.#differs.push(finding(subject, "differs", sentence, { entry }));
    }
  }

  #differ(subject: Subject, { entry }: MergeRecord, what: string): void {
    this.#differs.push(finding(subject, "differs", `Entry ${entry}: ${what}.`, { entry }));
  }

  #tell(sentence: string): void {
    this.#done += 1;
    // A start with its outer state, an update and a version (merged, too) each, and the other checkpoints.
    const total = 2 + 3 * this.#facts.merges.length + CHECKPOINTS_KEPT;
    this.#facts.ports.tell({ sentence, done: Math.min(this.#done, total), total });
  }

  findings(): readonly Finding[] {
    const { checkpoints, updates, versions, merges } = this.#agrees;
    const head = this.#facts.durable.head.version;
    const made = versions.filter((version) => version !== this.#from || version === 0);
    const start = this.#from === 0 ? "version 0, made from the charter" : `the checkpoint of version ${this.#from}`;
    const all = Array.from({ length: head }, (_, i) => i + 1);
    const missing = (seen: readonly number[]): number[] => all.filter((version) => !seen.includes(version));
    const agreed = (subject: Subject, seen: readonly number[], sentence: string): Finding[] =>
      seen.length === 0 ? [] : [finding(subject, "agrees", sentence, { count: seen.length })];
    const unchecked = (subject: Subject, seen: readonly number[], why: string): Finding[] => {
      const rest = missing(seen);
      return rest.length === 0 ? [] : [finding(subject, "unchecked", `Not checked: ${nameVersions(rest)}. ${why}`)];
    };
    const follow = made.filter((version) => version > 0);
    return [
      ...this.#differs,
      ...agreed(
        "checkpoints",
        checkpoints,
        `The checkpoints of ${nameVersions(checkpoints.toSorted(ascending))} have the digests in the ledger.`,
      ),
      ...agreed("updates", updates, `The updates of ${nameVersions(updates)} have the digests in the ledger.`),
      ...agreed(
        "versions",
        follow,
        `From ${start}, base − update gives the ledger’s digest for ${nameVersions(follow)}, bit for bit.`,
      ),
      ...agreed(
        "merges",
        merges,
        `The ${merges.length === 1 ? "merge" : "merges"} of ${nameVersions(merges)}, done again here from ${plural(this.#contributions, "contribution")} (decoded, clipped, averaged, outer step, compressed), ${merges.length === 1 ? "gives" : "give"} the same bits.`,
      ),
      ...unchecked(
        "versions",
        follow,
        `A version is made again from a checkpoint before it (the relay keeps the newest ${CHECKPOINTS_KEPT}) and the updates since (the newest ${UPDATES_KEPT}).`,
      ),
      ...unchecked(
        "merges",
        merges,
        `A merge is done again from the outer state before it (kept for ${CHECKPOINTS_KEPT} versions) and its contributions’ payloads (${ROUNDS_KEPT} rounds).`,
      ),
    ];
  }
}

function ascending(a: number, b: number): number {
  return a - b;
}

async function fetchAs(fetchBlob: FetchBlob, digest: Digest, bytesMax: number): Promise<Fetched> {
  try {
    return { type: "bytes", bytes: await fetchBlob(digest, bytesMax) };
  } catch (error) {
    if (error instanceof HeddleError && (error.code === "absent" || error.code === "unreachable")) {
      return { type: "gone" };
    }
    if (error instanceof HeddleError && (error.code === "integrity" || error.code === "limit")) {
      return { type: "differs" };
    }
    throw error;
  }
}
