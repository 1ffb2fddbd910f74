/**
 * The oracle judges a finished simulation from outside: from the bytes on the relay's disk, from what was told to the
 * contributors over their links, and from the parameters that they hold. It shares no state with what it checks; of the
 * production code it uses the readers and the arithmetic, because a replay by anybody must give the same bits. Real relays, whose
 * old blobs are gone, are judged by the same rules but for the replay (`test/faults/`).
 */
import {
  digestOf,
  floatBytes,
  type Bytes,
  type ContributionId,
  type ContributorId,
  type Digest,
} from "../base/bytes.ts";
import type { Charter } from "../protocol/charter.ts";
import { verifyChain } from "../protocol/chain.ts";
import { contributionIdOf, decodeHeader } from "../protocol/codec.ts";
import type { VerifySignature } from "../protocol/keys.ts";
import type { LedgerEntry, LedgerEvent } from "../protocol/ledger.ts";
import type { ContributionHeader } from "../protocol/messages.ts";
import type { Verdict } from "../protocol/verdict.ts";
import { weightIn } from "../coordinator/late.ts";
import { notebookKey, openNotebook, type Page, type Signed } from "../contributor/notebook.ts";
import { createMemoryStore, type MemoryDisk } from "../store/memory.ts";
import { applyUpdate } from "../update/delta.ts";
import { shareLeft } from "../update/feedback.ts";
import { createServerState, outerAt } from "../update/outer.ts";
import { mergeUpdates, outerStep } from "../update/twin.ts";
import { unpackUpdate, type SparseUpdate } from "../update/unpack.ts";

/** A verdict as it reached a contributor. */
export interface Told {
  readonly contributor: ContributorId;
  readonly contribution: ContributionId;
  readonly verdict: Verdict;
  /** An acceptance was on the relay's disk when it arrived. */
  readonly written: boolean;
}

/** A replica: the parameters that somebody held, and the version they were said to be. */
export interface Replica {
  readonly contributor: ContributorId;
  readonly version: number;
  readonly digest: Digest;
}

/** All that a contributor ever wrote to its disk: the values of keys in order, and blobs. */
export interface Diary {
  readonly contributor: ContributorId;
  readonly honest: boolean;
  readonly pages: { readonly key: string; readonly value: Bytes }[];
  readonly blobs: Map<Digest, Bytes>;
}

/** What can be judged without the blobs. */
export interface Testimony {
  /** The ledger at the end. */
  readonly disk: Pick<MemoryDisk, "entries">;
  readonly charter: Charter;
  readonly verify: VerifySignature;
  readonly told: readonly Told[];
  /** Every base that anybody trained on or measured with. */
  readonly used: readonly Replica[];
  readonly diaries: readonly Diary[];
  /** What each live honest contributor holds at the end, when all is quiet. */
  readonly final: readonly Replica[];
  readonly liars: ReadonlySet<ContributorId>;
}

export interface Evidence extends Testimony {
  /** The relay's disk at the end. */
  readonly disk: MemoryDisk;
  /** Every blob that was ever on it: a relay forgets old ones. */
  readonly blobs: ReadonlyMap<Digest, Bytes>;
  /** Parameters [P] that the run began with. */
  readonly initial: Float32Array<ArrayBuffer>;
}

export interface Finding {
  readonly rule: string;
  readonly detail: string;
}

type Of<K extends LedgerEvent["type"]> = Extract<LedgerEvent, { readonly type: K }>;

/** The ledger sorted by what is asked of it. */
interface History {
  readonly started: Of<"started">;
  readonly merges: readonly Of<"merged">[];
  readonly headers: ReadonlyMap<ContributionId, ContributionHeader>;
  readonly verdicts: ReadonlyMap<ContributionId, Verdict>;
  /** The round that was open when a contribution was received. */
  readonly received: ReadonlyMap<ContributionId, number>;
  /** Rounds that ended. */
  readonly ended: ReadonlySet<number>;
}

/** Everything that is wrong; empty when nothing is. */
export function examine(evidence: Evidence): Promise<readonly Finding[]> {
  return judge(evidence, (history, find) => checkReplay(history, evidence, find));
}

/** What is wrong as far as it shows without the blobs. */
export function examineTestimony(testimony: Testimony): Promise<readonly Finding[]> {
  return judge(testimony, () => undefined);
}

async function judge(
  testimony: Testimony,
  checkBlobs: (history: History, find: Find) => void,
): Promise<readonly Finding[]> {
  const findings: Finding[] = [];
  const find = (rule: string, detail: string): void => {
    findings.push({ rule, detail });
  };
  const chain = await verifyChain(testimony.disk.entries, { verify: testimony.verify });
  if (!chain.ok) {
    return [{ rule: "the ledger is one signed chain", detail: chain.detail }];
  }
  const history = readHistory(chain.value.entries, find);
  if (history === undefined) {
    return findings;
  }
  checkOperator(chain.value.entries, find);
  checkOnce(history, testimony, find);
  checkTold(history, testimony, find);
  checkLiars(history, testimony.liars, find);
  checkBlobs(history, find);
  checkReplicas(history, testimony, find);
  for (const diary of testimony.diaries.filter(({ honest }) => honest)) {
    await checkResiduals(history, diary, testimony, find);
  }
  return findings;
}

type Find = (rule: string, detail: string) => void;

function readHistory(entries: readonly LedgerEntry[], find: Find): History | undefined {
  const [first] = entries;
  if (first?.event.type !== "started") {
    find("the ledger begins with the start", `it has ${entries.length} entries`);
    return undefined;
  }
  const merges: Of<"merged">[] = [];
  const headers = new Map<ContributionId, ContributionHeader>();
  const verdicts = new Map<ContributionId, Verdict>();
  const ended = new Set<number>();
  const received = new Map<ContributionId, number>();
  let open = 0;
  for (const { event } of entries) {
    if (event.type === "opened") {
      open = event.round;
    } else if (event.type === "contributed") {
      received.set(event.contribution, open);
      const header = decodeHeader(event.header);
      if (headers.has(event.contribution)) {
        find("a contribution is received once", event.contribution);
      }
      if (!header.ok || contributionIdOf(event.header) !== event.contribution) {
        find("a contribution's id is the digest of its header", event.contribution);
      } else {
        headers.set(event.contribution, header.value);
      }
    } else if (event.type === "judged") {
      if (verdicts.has(event.contribution)) {
        find("a contribution is judged once", event.contribution);
      }
      verdicts.set(event.contribution, event.verdict);
    } else if (event.type === "merged" || event.type === "skipped") {
      if (ended.has(event.round)) {
        find("a round ends once", String(event.round));
      }
      ended.add(event.round);
      if (event.type === "merged") {
        merges.push(event);
      }
    }
  }
  return { started: first.event, merges, headers, verdicts, received, ended };
}

/** What the operator has forbidden does not happen until it is allowed again. */
function checkOperator(entries: readonly LedgerEntry[], find: Find): void {
  const banned = new Set<ContributorId>();
  let paused = false;
  for (const { event } of entries) {
    if (event.type === "banned") {
      banned.add(event.contributor);
    } else if (event.type === "unbanned") {
      banned.delete(event.contributor);
    } else if (event.type === "paused" || event.type === "resumed") {
      paused = event.type === "paused";
    } else if (event.type === "opened" && paused) {
      find("no round is opened while the run is paused", String(event.round));
    } else if (event.type === "contributed") {
      const header = decodeHeader(event.header);
      if (header.ok && banned.has(header.value.contributor)) {
        find("nobody who is banned contributes", event.contribution);
      }
    }
  }
}

/** Accepted contributions of ended rounds are merged, once, in the round that received them; nothing else is. */
function checkOnce({ merges, headers, verdicts, received, ended }: History, { charter }: Testimony, find: Find): void {
  const merged = new Map<ContributionId, number>();
  for (const { round, contributions } of merges) {
    for (const id of contributions) {
      if (merged.has(id)) {
        find("no contribution is merged twice", id);
      }
      merged.set(id, round);
      if (verdicts.get(id)?.type !== "accepted") {
        find("only accepted contributions are merged", id);
      }
      if (received.get(id) !== round) {
        find("a contribution is merged in the round that received it", id);
      }
    }
  }
  for (const [id, { round }] of headers) {
    const behind = (received.get(id) ?? 0) - round;
    if (behind !== 0 && (behind !== 1 || charter.round.lateShare === 0)) {
      find("a contribution is received in its own round or, where the charter lets it, in the next", id);
    }
  }
  for (const [id, verdict] of verdicts) {
    const round = received.get(id);
    if (verdict.type === "accepted" && !merged.has(id) && (round === undefined || ended.has(round))) {
      find("no accepted contribution is lost", id);
    }
  }
}

/** What contributors were told is what the ledger says, and everyone was told. */
function checkTold({ headers, verdicts }: History, { told, liars }: Testimony, find: Find): void {
  const heard = new Set<ContributionId>();
  for (const { contribution, verdict, written: durable } of told) {
    const written = verdicts.get(contribution);
    if (verdict.type === "accepted" && !durable) {
      find("nobody is told of what is not yet written", contribution);
    }
    if (verdict.type === "accepted" && written?.type !== "accepted") {
      find("who was told that it is accepted is accepted in the ledger", contribution);
    }
    // The first word counts; a contribution that comes again after it may be called what it is, a replay.
    const first = !heard.has(contribution) || verdict.type === "accepted" || verdict.reason !== "replayed";
    if (first && verdict.type === "refused" && written?.type === "accepted") {
      find("who is accepted in the ledger was never told otherwise", `${contribution}: ${verdict.reason}`);
    }
    heard.add(contribution);
  }
  for (const [id, { contributor }] of headers) {
    if (!liars.has(contributor) && verdicts.has(id) && !heard.has(id)) {
      find("every judged contribution's author is told", id);
    }
  }
}

function checkLiars({ merges, headers }: History, liars: ReadonlySet<ContributorId>, find: Find): void {
  for (const id of merges.flatMap((merge) => merge.contributions)) {
    const author = headers.get(id)?.contributor;
    if (author !== undefined && liars.has(author)) {
      find("no liar's contribution is in the base", id);
    }
  }
}

/** Anyone who has the blobs gets every version from the one before, bit for bit, merge included. */
function checkReplay({ started, merges, headers }: History, { blobs, charter, initial }: Evidence, find: Find): void {
  let params = initial;
  if (digestOf(floatBytes(params)) !== started.head.digest) {
    find("the run begins with the initial parameters", started.head.digest);
    return;
  }
  let server = createServerState(params.length);
  let head = started.head;
  for (const merge of merges) {
    const updates = merge.contributions.map((id) => {
      const header = headers.get(id);
      const update = unpacked(header && blobs.get(header.payload.digest), params.length);
      const weight = header === undefined ? 0 : weightIn(merge.round, header, charter);
      const steps = header === undefined ? 1 : header.steps + header.ahead;
      return { id, update, weight, steps, privateData: header?.privateData ?? false };
    });
    const known = updates.flatMap(({ update, ...rest }) => (update === null ? [] : [{ ...rest, update }]));
    if (new Set(merge.contributions).size < updates.length || updates.some(({ weight }) => weight === 0)) {
      return; // found already, and not to be merged
    }
    if (known.length < updates.length) {
      find("the payloads of merged contributions are blobs", `version ${merge.head.version}`);
      return;
    }
    const settings = outerAt(charter, head.version + 1);
    const merged = mergeUpdates(known, { parameters: params.length, ...settings });
    const outer = outerStep(server, merged, settings, charter.downlink);
    params = applyUpdate(params, outer.update);
    server = outer.server;
    if (digestOf(floatBytes(params)) !== merge.head.digest || digestOf(outer.broadcast) !== merge.head.update?.digest) {
      find("replaying the merges gives the head's digest", `version ${merge.head.version}`);
      return;
    }
    if (digestOf(server.bytes) !== merge.server) {
      find("replaying the merges gives the server's state", `version ${merge.head.version}`);
    }
    if (merge.head.version !== head.version + 1 || merge.head.parent !== head.digest) {
      find("versions follow each other", `version ${merge.head.version}`);
    }
    head = merge.head;
  }
}

function unpacked(bytes: Bytes | undefined, parameters: number): SparseUpdate | null {
  const update = bytes === undefined ? undefined : unpackUpdate(bytes, { parameters, keepMax: 4096 });
  return update?.ok === true ? update.value : null;
}

/** Nobody ever worked on a base that is not in the ledger, and in the end everybody holds the head. */
function checkReplicas({ started, merges }: History, { used, final }: Testimony, find: Find): void {
  const digests = new Map(
    [started.head, ...merges.map((merge) => merge.head)].map((each) => [each.version, each.digest]),
  );
  for (const { contributor, version, digest } of used) {
    if (digests.get(version) !== digest) {
      find("every base in use is a version of the ledger", `${contributor} at version ${version}`);
    }
  }
  const head = merges.at(-1)?.head ?? started.head;
  for (const { contributor, version, digest } of final) {
    if (version !== head.version || digest !== head.digest) {
      find(
        "in the end every replica is the head",
        `${contributor} holds version ${version}, the head is ${head.version}`,
      );
    }
  }
}

/** What was accepted has left its author's residual, and nothing else has, whatever crashed in between. */
async function checkResiduals(
  { started, verdicts }: History,
  { contributor, pages, blobs }: Diary,
  { charter }: Testimony,
  find: Find,
): Promise<void> {
  let before: Page | undefined;
  const pageKey = notebookKey(started.run);
  for (const { key, value } of pages.filter((written) => written.key === pageKey)) {
    const disk = { entries: [], values: new Map([[key, value]]), blobs };
    const page = await openNotebook(createMemoryStore({ disk }), started.run).read();
    for (const signed of before === undefined ? [] : waitingIn(before)) {
      const waits = waitingIn(page).some(({ pending }) => pending.id === signed.pending.id);
      if (before !== undefined && !waits) {
        const accepted = verdicts.get(signed.pending.id)?.type === "accepted";
        const apart = signed === before.late;
        // What was set apart has left it before, and comes back, faded, where it was refused.
        const fade = shareLeft({ beta: charter.uplink.beta, missed: before.round - signed.pending.round - 1 });
        const share = accepted ? (apart ? 0 : -1) : apart ? fade : 0;
        const right = isWith(page, before, { signed, share }) || (page.residual === null && !accepted);
        if (page.made !== before.made || !right) {
          find("a residual gives up exactly what was accepted", `${contributor}: ${signed.pending.id}`);
        }
      }
    }
    before = page;
  }
}

function waitingIn({ signed, late }: Page): Signed[] {
  return [late, signed].filter((one) => one !== null);
}

/** Whether the residual is the one before with a share of what `signed` sent, or both are none. */
function isWith(
  { residual }: Page,
  before: Page,
  { signed, share }: { readonly signed: Signed; readonly share: number },
): boolean {
  const rest = before.residual?.slice();
  const sent = rest === undefined ? null : unpacked(signed.payload, rest.length);
  if (rest === undefined || sent === null) {
    return rest === undefined && residual === null && share >= 0;
  }
  if (share !== 0) {
    sent.indices.forEach((index, i) => {
      rest[index] = (rest[index] as number) + share * (sent.values[i] as number);
    });
  }
  return residual !== null && residual.every((value, i) => Object.is(value, rest[i]));
}
