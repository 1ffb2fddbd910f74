/**
 * The judgement of a campaign from outside, when all is quiet: the ledger as every relay serves it, what contributors were told and
 * hold, by the oracle of the simulation; and the newest merges done again by whoever reads the blobs.
 */
import { present } from "../../src/base/assert.ts";
import { digestOf, type Bytes, type ContributionId, type ContributorId } from "../../src/base/bytes.ts";
import { entries as writeEntries, key } from "../../src/coordinator/ledger.fixture.ts";
import { verifyRun } from "../../src/coordinator/verify.ts";
import { verifySignature } from "../../src/net/device-key.ts";
import { createBlobFetcher } from "../../src/net/http.ts";
import { createLedgerFetcher } from "../../src/net/ledger.ts";
import { decodeEntry } from "../../src/protocol/chain.ts";
import type { Charter } from "../../src/protocol/charter.ts";
import type { LedgerEvent } from "../../src/protocol/ledger.ts";
import { examineTestimony, type Finding, type Told } from "../../src/sim/oracle.ts";
import { soloCrew } from "../../src/update/solo.ts";
import { loadMergeKernel } from "../../src/wasm/merge.ts";
import type { Crowd } from "./crowd.ts";
import { fetchAgain, runOf, until, type Relay, type Stage } from "./stage.ts";

const NOBODY: ReadonlySet<ContributorId> = new Set();

/** Follows a ledger over HTTP. */
export class LedgerReader {
  readonly entries: Bytes[] = [];
  readonly #accepted = new Set<ContributionId>();
  readonly #judged = new Set<ContributionId>();

  get accepted(): ReadonlySet<ContributionId> {
    return this.#accepted;
  }
  get judged(): ReadonlySet<ContributionId> {
    return this.#judged;
  }

  /** Reads to the end, from one of the relays. */
  async readOn(relay: Relay): Promise<void> {
    const fetchLedger = createLedgerFetcher(originOf(relay), fetchAgain);
    for (let length = Number.POSITIVE_INFINITY; this.entries.length < length;) {
      const page = await fetchLedger(this.entries.length);
      page.entries.forEach((bytes) => this.#take(bytes));
      length = page.entries.length === 0 ? this.entries.length : page.length;
    }
  }

  #take(bytes: Bytes): void {
    this.entries.push(bytes);
    const entry = decodeEntry(bytes);
    if (entry.ok && entry.value.event.type === "judged") {
      const { contribution, verdict } = entry.value.event;
      this.#judged.add(contribution);
      if (verdict.type === "accepted") {
        this.#accepted.add(contribution);
      }
    }
  }
}

/** Told to be accepted, and not in the ledger. */
export function lostOf(told: readonly Told[], accepted: ReadonlySet<ContributionId>): Finding[] {
  return told
    .filter(({ verdict, contribution }) => verdict.type === "accepted" && !accepted.has(contribution))
    .map(({ contribution }) => ({
      rule: "who was told that it is accepted is accepted in the ledger",
      detail: contribution,
    }));
}

/** Pauses the run, waits until all is told and fetched, and looks at everything. */
export async function examineStage(stage: Stage, crowd: Crowd, ledger: LedgerReader): Promise<readonly Finding[]> {
  await stage.pause();
  const { charter, versions } = await runOf(stage.leader());
  const head = versions.at(-1);
  const isQuiet = async (): Promise<boolean> => {
    await ledger.readOn(stage.leader());
    const heard = new Set(crowd.told.map(({ contribution }) => contribution));
    return (
      [...ledger.judged].every((id) => heard.has(id)) && crowd.replicas().every((one) => one.digest === head?.digest)
    );
  };
  await until("everybody to have the head and every verdict", isQuiet).catch(() => undefined); // the oracle says what is missing
  const findings = await Promise.all([
    examineTestimony({
      disk: ledger,
      charter,
      verify: verifySignature,
      told: crowd.told,
      used: [],
      diaries: crowd.diaries,
      final: crowd.replicas(),
      liars: NOBODY,
    }),
    ...stage.relays().map((relay) => examineRelay(relay, ledger, head?.digest ?? "")),
  ]);
  await stage.resume();
  return findings.flat();
}

/** What one relay serves to anybody. */
async function examineRelay(relay: Relay, { entries }: LedgerReader, head: string): Promise<Finding[]> {
  const findings: Finding[] = [];
  const find = (rule: string, detail: string): number => findings.push({ rule, detail: `${relay.name}: ${detail}` });
  await until(
    `${relay.name} to serve the head`,
    async () => (await runOf(relay)).versions.at(-1)?.digest === head,
  ).catch((error: unknown) => find("every relay serves the head", String(error)));
  const fetchBlob = createBlobFetcher({ origin: originOf(relay) });
  const seen = { entry: entries.length - 1, digest: digestOf(entries.at(-1) as Bytes) };
  const { findings: said } = await verifyRun({
    fetchLedger: createLedgerFetcher(originOf(relay), fetchAgain),
    fetchBlob,
    verify: verifySignature,
    openCrew: soloCrew(await loadMergeKernel()),
    seen,
    tell: () => undefined,
  });
  for (const { state, sentence } of said) {
    if (state === "differs") {
      find("the run verifies", sentence);
    }
  }
  return findings;
}

function originOf({ port }: Relay): string {
  return `http://127.0.0.1:${port}`;
}

/** The ledger as a dishonest relay could write it: every signature and digest right, by a key of its own. */
type Forgery = (events: readonly LedgerEvent[], accepted: ContributionId) => readonly LedgerEvent[];

const FORGERIES: Readonly<Record<string, Forgery>> = {
  "who was told that it is accepted is accepted in the ledger": (events, id) =>
    events.map((event) =>
      event.type === "judged" && event.contribution === id
        ? { ...event, verdict: { type: "refused", reason: "late" } as const }
        : event,
    ),
  "a contribution is judged once": (events, id) =>
    events.flatMap((event) => (event.type === "judged" && event.contribution === id ? [event, event] : [event])),
  "no accepted contribution is lost": (events, id) =>
    events.map((event) => (event.type === "merged" && event.contributions.includes(id) ? without(event, id) : event)),
  "no contribution is merged twice": (events, id) =>
    events.map((event) =>
      event.type === "merged" && event.contributions.includes(id)
        ? { ...event, contributions: [...event.contributions, id] }
        : event,
    ),
};

/** A round from which nothing is merged is skipped. */
function without(merged: Extract<LedgerEvent, { type: "merged" }>, id: ContributionId): LedgerEvent {
  const contributions = merged.contributions.filter((one) => one !== id);
  return contributions.length === 0 ? { type: "skipped", round: merged.round } : { ...merged, contributions };
}

/** The rules that this oracle does not hold against a ledger in which they are broken for one contribution; empty for a good one. */
export async function blindSpots(
  charter: Charter,
  told: readonly Told[],
  entries: readonly Bytes[],
): Promise<string[]> {
  const events = entries.flatMap((bytes): LedgerEvent[] => {
    const read = decodeEntry(bytes);
    const event = read.ok ? read.value.event : null;
    return event === null ? [] : [event.type === "started" ? { ...event, relay: key.publicKey } : event];
  });
  const merged = events.flatMap((event) => (event.type === "merged" ? event.contributions : []));
  const victim = present(merged[merged.length >> 1], "a contribution in the base");
  const blind: string[] = [];
  for (const [rule, forge] of Object.entries(FORGERIES)) {
    const disk = { entries: await writeEntries(forge(events, victim)) };
    const testimony = {
      disk,
      charter,
      verify: verifySignature,
      told,
      used: [],
      diaries: [],
      final: [],
      liars: NOBODY,
    };
    const rules = (await examineTestimony(testimony)).map((one) => one.rule);
    if (!rules.includes(rule)) {
      blind.push(rule);
    }
  }
  return blind;
}
