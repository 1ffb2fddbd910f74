/**
 * What a contributor holds while it takes part in one run: the base, the engine's work, the residual, the contribution that
 * waits for its verdict. Here a contribution is made (train, add what that changed to the residual, pack, sign, write
 * down) and another's is checked. `run.ts` calls it and `tick.ts` decides when.
 */
import { HeddleError, messageIn, present } from "../base/assert.ts";
import { digestOf, type Bytes, type ContributionId, type Digest } from "../base/bytes.ts";
import { createTurn } from "../base/turn.ts";
import type { FetchBlob } from "../net/link.ts";
import { keepMaxOf, type Charter, type Compression } from "../protocol/charter.ts";
import { contributionIdOf, contributorIdOf, encodeHeader, encodeMessage, encodeReport } from "../protocol/codec.ts";
import type { DeviceKey } from "../protocol/keys.ts";
import { CONTRIBUTION_BYTES_MAX } from "../protocol/limits.ts";
import type { TrainAssignment, ValidateAssignment, VersionInfo } from "../protocol/messages.ts";
import { countPieces, digestPieces, pieceAt } from "../protocol/pieces.ts";
import type { Store } from "../store/store.ts";
import { unpackUpdate } from "../update/unpack.ts";
import { fetchBase } from "./base.ts";
import { forgetEarlierRuns } from "./forget.ts";
import { openNotebook, type Held, type Page, type Signed } from "./notebook.ts";
import { packOnHost, type Feed } from "./packing.ts";
import { roundsMissed, setApart, settled, settledLate, startOf } from "./residual.ts";
import type { ContributorState, Outcome, Pending } from "./state.ts";
import { objectionToAssignment, objectionToCharter, tooLittle, type Terms } from "./terms.ts";
import type { CreateWork, EngineInUse, JobOptions, LocalRun, Work } from "./work.ts";

export interface DeskOptions {
  readonly run: Digest;
  readonly charter: Charter;
  readonly key: DeviceKey;
  readonly privateData: boolean;
  /** What is asked of the run before anything is trained for it; default: nothing. */
  readonly terms?: Terms | undefined;
  readonly fetchBlob: FetchBlob;
  /** Fetches a checkpoint; default: like any other blob. */
  readonly fetchCheckpoint?: FetchBlob;
  readonly store: Store;
  /** Where the relay is reached, in whose store others' runs may be, too. */
  readonly origin?: string | undefined;
  /** SHA-256 */
  readonly hash: (bytes: Bytes) => Promise<Digest>;
  readonly createWork: CreateWork;
  /** Largest piece of a contribution. */
  readonly pieceBytes: number;
  /** The work is on another engine than before. */
  readonly onEngine: (engine: EngineInUse) => void;
  /** Something could not be written down; the work goes on. */
  readonly onTrouble: (reason: string) => void;
}

export interface Desk {
  readonly run: Digest;
  /**
   * Fetches the data, makes the engine ready and reads the notebook; again after a device was lost. `losses`: engines that
   * failed since work was last finished.
   */
  prepare(losses: number): Promise<Pick<ContributorState, "pending" | "late">>;
  /**
   * Gets the parameters of `head`: by the updates since the version that this desk holds, or held before its last start,
   * where the versions between (`earlier`, oldest first) are known; from its checkpoint otherwise.
   */
  fetch(head: VersionInfo, earlier: readonly VersionInfo[]): Promise<void>;
  /** Writes the base held down for the next start. */
  keep(): Promise<void>;
  /** The base held, [P], not to be changed. */
  base(): Held | null;
  /** A signed contribution that is written down, or null when the work was stopped before its end. */
  train(assignment: TrainAssignment, options: JobOptions): Promise<Pending | null>;
  /**
   * Trains on from where the last assignment ended, until `stepsMax` steps are taken there; resolves to how many are. What
   * they made of the parameters goes into the next contribution. Null when there is nothing to go on from.
   */
  goAhead(stepsMax: number, options: JobOptions): Promise<number | null>;
  /** Fetches what is to be checked. */
  supply(assignment: ValidateAssignment): Promise<void>;
  /** Of what was supplied: a signed report, or null when the work was stopped or the update cannot be read. */
  validate(
    assignment: ValidateAssignment,
    options: JobOptions,
  ): Promise<{ readonly body: Bytes; readonly signature: Bytes } | null>;
  /** The message that brings a contribution that waits for its verdict: the whole, or the offer of its pieces. */
  messageOf(id: ContributionId): Bytes | undefined;
  /** The message that brings one of its pieces. */
  pieceOf(id: ContributionId, index: number): Bytes | undefined;
  settle(id: ContributionId, outcome: Outcome): Promise<void>;
  putAway(): void;
}

/** Rounds in a row whose work was too little for the terms: a device that is always too slow would train for nothing. */
const SHORT_MAX = 3;
/** Steps in a round, of those that fit, with which a device goes ahead: one with fewer has long ones, which an assignment would wait for. */
const AHEAD_STEPS_MIN = 3;

export function createDesk(options: DeskOptions): Desk {
  const { run, charter, key, privateData, fetchBlob, store, pieceBytes } = options;
  const { fetchCheckpoint = fetchBlob, terms } = options;
  const notebook = openNotebook(store, run, options.hash);
  let work: Work | undefined;
  let held: Held | undefined;
  let trail: Trail | undefined;
  /** Rounds in a row of which too little came to be sent. */
  let short = 0;
  let page: Page | undefined;
  let reading: Promise<Page> | undefined;
  /** Digests of the pieces of the payload that waits for its verdict. */
  let cut: { readonly payload: Bytes; readonly pieces: Bytes } | undefined;
  /** What is to be checked next: the assignment, and what it is about once that is here. */
  let supply: { readonly assignment: string; readonly payload?: Bytes } | undefined;
  /** What changes the page happens one after the other. */
  const inTurn = createTurn();
  const write = async (next: Page): Promise<void> => {
    page = next;
    try {
      await notebook.write(next);
    } catch (error) {
      options.onTrouble(`What this device keeps for a restart could not be written down: ${messageIn(error)}`);
    }
  };
  const readOnce = async (): Promise<Page> => {
    reading ??= notebook.read().catch((error: unknown) => {
      reading = undefined; // it may be readable the next time
      throw error;
    });
    page ??= await reading;
    return page;
  };
  const baseOf = (digest: Digest): Float32Array<ArrayBuffer> => {
    const { digest: has, params } = present(held, "the base");
    if (has !== digest) {
      throw new HeddleError("integrity", `Cannot work: the base held is ${has}, the assignment is for ${digest}`);
    }
    return params;
  };

  const contribute = async (assignment: TrainAssignment, { local, start, ahead }: Trained): Promise<Pending> => {
    const before = setApart(await readOnce());
    const feed: Feed = {
      start,
      residual: before.residual,
      rounds: roundsMissed(before, assignment),
      uplink: uplinkOf(charter, { keep: assignment.keep, made: before.made }),
    };
    const { after } = local;
    const { payload, residual } = after instanceof Float32Array ? packOnHost(feed, after) : await after.pack(feed);
    const signed = await sign({ run, key, privateData, assignment, local, ahead, payload, pieceBytes });
    const moments = (await work?.moments()) ?? null;
    const { base, late } = before;
    await write({ base, residual, round: assignment.round, made: before.made + 1, moments, signed, late });
    return signed.pending;
  };

  return {
    run,
    prepare: (losses) =>
      inTurn(async () => {
        insist(terms && objectionToCharter(charter, terms));
        const texts = await fetchTexts(charter, options);
        work?.[Symbol.dispose]();
        work = undefined;
        const contributor = contributorIdOf(key.publicKey);
        work = await options.createWork({ charter, contributor, texts, losses, onEngine: options.onEngine });
        const read = await readOnce();
        const shards = charter.train.flatMap((set) => set.shards.map(({ digest }) => digest));
        const present = { run, origin: options.origin ?? "", blobs: new Set([...notebook.names(), ...shards]) };
        await forgetEarlierRuns(store, present).catch(() => undefined); // the next start goes on
        const { moments, signed, late } = read;
        // What fails twice from the same moments may fail because of them, or of the residual where training begins from it, too.
        if (moments !== null && losses < 2) {
          await work.restore(moments);
        } else if (losses >= 2 && charter.uplink.carry && read.residual !== null) {
          await write({ ...read, residual: null });
        }
        const pendingOf = (one: Signed | null): Pending | null =>
          one && { ...one.pending, pieces: countPieces(one.payload.length, pieceBytes) };
        return { pending: pendingOf(signed), late: pendingOf(late) };
      }),
    fetch: async (head, earlier) => {
      held ??= (await readOnce()).base ?? undefined;
      held = {
        digest: head.digest,
        params: await fetchBase(head, { held, earlier, charter, fetchBlob, fetchCheckpoint }),
      };
    },
    keep: () =>
      inTurn(async () => {
        const before = await readOnce();
        if (held !== undefined && held.digest !== before.base?.digest) {
          await write({ ...before, base: held });
        }
      }),
    base: () => held ?? null,
    train: async (assignment, job) => {
      insist(terms && objectionToAssignment(assignment, charter, terms));
      const { uplink } = charter;
      const { aheadMax, aheadShare } = charter.round;
      const before = trail;
      trail = undefined;
      const lead = before !== undefined && isNext(before, assignment) && before.steps > 0 ? before : null;
      const base = baseOf(assignment.baseDigest);
      // In turn: a verdict that has come before the assignment may still be on its way into the page.
      const start = uplink.carry
        ? await inTurn(async () => startOf(base, setApart(await readOnce()), { assignment, uplink }))
        : base;
      const from = lead === null ? start : moved(start, lead, aheadShare);
      const ahead = lead?.steps ?? 0;
      const left = { ...assignment, stepsMax: Math.max(1, assignment.stepsMax - ahead) };
      const local = await present(work, "the engine").train(left, from, job);
      if (job.signal.aborted || local.steps === 0) {
        return null;
      }
      const objection = terms && tooLittle(amountOf(local, Math.floor(aheadShare * ahead)), terms);
      if (typeof objection === "string") {
        short += job.signal.ended ? 0 : 1;
        insist(short < SHORT_MAX ? null : objection);
        options.onTrouble(objection);
        return null;
      }
      short = 0;
      const pending = await inTurn(() => contribute(assignment, { local, start, ahead }));
      if (aheadMax > 0 && local.steps >= Math.min(left.stepsMax, AHEAD_STEPS_MIN)) {
        // What is signed and written down does not depend on it.
        const ended = await parametersOf(local).catch(() => undefined);
        trail = ended && { assignment, taken: local.steps, ended, params: ended, steps: 0 };
      }
      return pending;
    },
    goAhead: async (stepsMax, job) => {
      const at = trail;
      if (at === undefined) {
        return null;
      }
      let next: Trail;
      try {
        next = await stepAhead(present(work, "the engine"), at, { ...job, stepsMax });
      } catch (error) {
        trail = undefined; // nothing of a failed engine is used
        throw error;
      }
      if (trail !== at) {
        return null; // given up meanwhile
      }
      trail = next;
      return next.steps;
    },
    supply: async ({ id, payload: { digest, bytes } }) => {
      supply = { assignment: id };
      const payload = await fetchBlob(digest, bytes);
      if (supply?.assignment === id) {
        supply = { assignment: id, payload };
      }
    },
    validate: async (assignment, job) => {
      const base = baseOf(assignment.baseDigest);
      if (supply?.payload === undefined || supply.assignment !== assignment.id) {
        return null; // fetched for another run's desk, or for another assignment since
      }
      const update = unpackUpdate(supply.payload, { parameters: base.length, keepMax: keepMaxOf(charter) });
      supply = undefined;
      if (!update.ok || job.signal.aborted) {
        return null;
      }
      const losses = await present(work, "the engine").validate(assignment, base, update.value, job);
      if (job.signal.aborted) {
        return null;
      }
      const { id, contribution } = assignment;
      const validator = contributorIdOf(key.publicKey);
      const body = encodeReport({ ...losses, run, validator, assignment: id, contribution });
      return { body, signature: await key.sign("report", body) };
    },
    messageOf: (id) => {
      const signed = signedAs(page, id);
      if (signed === undefined) {
        return undefined;
      }
      const { header, signature, payload } = signed;
      const count = countPieces(payload.length, pieceBytes);
      if (count === 1) {
        return encodeMessage({ type: "contribute", header, signature, payload });
      }
      cut = cut?.payload === payload ? cut : { payload, pieces: digestPieces(payload, count) };
      return encodeMessage({ type: "offer", header, signature, pieces: cut.pieces });
    },
    pieceOf: (id, index) => {
      const payload = signedAs(page, id)?.payload;
      if (payload === undefined) {
        return undefined;
      }
      const { length: bytes } = payload;
      const { start, end } = pieceAt(index, { bytes, count: countPieces(bytes, pieceBytes) });
      return encodeMessage({ type: "piece", contribution: id, index, bytes: payload.subarray(start, end) });
    },
    settle: (id, outcome) => {
      if (outcome === "discarded") {
        trail = undefined;
      }
      return inTurn(async () => {
        if (page?.signed?.pending.id === id) {
          await write({ ...page, residual: settled(page, outcome), signed: null });
        } else if (page?.late?.pending.id === id) {
          await write({ ...page, residual: settledLate(page, charter.uplink, outcome), late: null });
        }
      });
    },
    putAway: () => {
      [trail, supply] = [undefined, undefined];
      work?.[Symbol.dispose]();
      work = undefined;
    },
  };
}

/** Throws HeddleError "consent" for an objection. */
function insist(objection: string | null | undefined): void {
  if (typeof objection === "string") {
    throw new HeddleError("consent", objection);
  }
}

/** Steps and tokens of a contribution, what counts of those taken ahead included: every step has as many. */
function amountOf({ steps, tokens }: LocalRun, ahead: number): { readonly steps: number; readonly tokens: number } {
  return { steps: steps + ahead, tokens: (tokens / steps) * (steps + ahead) };
}

function signedAs(page: Page | undefined, id: ContributionId): Signed | undefined {
  return [page?.signed, page?.late].find((one) => one?.pending.id === id) ?? undefined;
}

/** The charter's open texts, in its order; each is kept in the store under its digest, if there is room. */
async function fetchTexts(charter: Charter, { store, fetchBlob, onTrouble }: DeskOptions): Promise<Bytes[]> {
  const texts: Bytes[] = [];
  for (const shard of charter.train.filter((set) => set.category === "fully-open").flatMap((set) => set.shards)) {
    // What is damaged is fetched anew.
    let text = await store.blobs.get(shard.digest).catch(() => undefined);
    if (text === undefined) {
      text = await fetchBlob(shard.digest, shard.bytes);
      await store.blobs.put(text).catch((error: unknown) => onTrouble(`A text could not be kept: ${messageIn(error)}`));
    }
    texts.push(text);
  }
  return texts;
}

/** What a device keeps of a contribution that is to keep `keep` of a chunk, when it has made so many before. */
function uplinkOf(
  { uplink, newcomers }: Charter,
  { keep, made }: { readonly keep: number; readonly made: number },
): Compression {
  return {
    bits: uplink.bits,
    beta: uplink.beta,
    keep: Math.max(keep, made < newcomers.contributions ? newcomers.keep : 1),
  };
}

/** Training that goes on where an assignment ended. */
interface Trail {
  readonly assignment: TrainAssignment;
  /** Steps that were contributed. */
  readonly taken: number;
  /** The parameters [P] after them, and now. */
  readonly ended: Float32Array;
  readonly params: Float32Array;
  /** Steps between the two. */
  readonly steps: number;
}

/** The trail after steps on the batches that follow, until `stepsMax` are taken on it. */
async function stepAhead(
  work: Work,
  at: Trail,
  { stepsMax, ...job }: JobOptions & { readonly stepsMax: number },
): Promise<Trail> {
  const local = await work.train({ ...at.assignment, stepsMax: stepsMax - at.steps }, at.params, {
    ...job,
    firstStep: at.taken + at.steps,
    onStep: (step) => job.onStep({ ...step, step: at.steps + step.step }),
  });
  return { ...at, params: await parametersOf(local), steps: at.steps + local.steps };
}

async function parametersOf({ after }: LocalRun): Promise<Float32Array<ArrayBuffer>> {
  return after instanceof Float32Array ? after : after.parameters();
}

/** What came between belongs to the round of `assignment`: the next version, or the same one after a round that was skipped. */
function isNext({ assignment: { baseVersion: last } }: Trail, { baseVersion }: TrainAssignment): boolean {
  return baseVersion === last || baseVersion === last + 1;
}

/** `start` [P] and a share of what the steps ahead made of the parameters. */
function moved(start: Float32Array, { ended, params }: Trail, share: number): Float32Array<ArrayBuffer> {
  return Float32Array.from(start, (value, i) => value + share * ((params[i] as number) - (ended[i] as number)));
}

interface Trained {
  readonly local: LocalRun;
  /** What its change is counted from, [P]. */
  readonly start: Float32Array<ArrayBuffer>;
  /** Steps taken before. */
  readonly ahead: number;
}

interface Signing {
  readonly run: Digest;
  readonly key: DeviceKey;
  readonly privateData: boolean;
  readonly assignment: TrainAssignment;
  readonly local: LocalRun;
  readonly ahead: number;
  readonly payload: Bytes;
  readonly pieceBytes: number;
}

async function sign(signing: Signing): Promise<Signed> {
  const { run, key, privateData, assignment, local, ahead, payload, pieceBytes } = signing;
  if (payload.length > CONTRIBUTION_BYTES_MAX) {
    throw new HeddleError(
      "limit",
      `Cannot send the update: it has ${payload.length} bytes, at most ${CONTRIBUTION_BYTES_MAX} fit`,
    );
  }
  const { id: name, round, baseVersion, baseDigest } = assignment;
  const { steps, losses } = local;
  const { tokens } = amountOf(local, ahead);
  const loss = losses.reduce((sum, each) => sum + each, 0) / losses.length;
  const header = encodeHeader({
    run,
    contributor: contributorIdOf(key.publicKey),
    assignment: name,
    round,
    baseVersion,
    baseDigest,
    steps,
    ahead,
    tokens,
    loss: privateData ? 0 : loss, // headers are public, and what a text costs the model says something about it
    privateData,
    payload: { digest: digestOf(payload), bytes: payload.length },
  });
  const signature = await key.sign("contribution", header);
  const wireBytes = header.length + signature.length + payload.length;
  const pieces = countPieces(payload.length, pieceBytes);
  const pending = { id: contributionIdOf(header), round, baseVersion, wireBytes, pieces, steps: steps + ahead, loss };
  return { pending, header, signature, payload };
}
