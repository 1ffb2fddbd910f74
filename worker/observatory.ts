/**
 * The observatory's worker: reads the ledger page by page and folds it, reads single rounds again, or verifies the whole run
 * (`coordinator/verify.ts`), so that the page itself stays free.
 */
import { HeddleError, messageIn } from "../src/base/assert.ts";
import { verifyRun } from "../src/coordinator/verify.ts";
import { createPair, verifySignature } from "../src/net/device-key.ts";
import { createBlobFetcher } from "../src/net/http.ts";
import { createLedgerFetcher } from "../src/net/ledger.ts";
import { decodeEntry, EMPTY_CHAIN, linkEntry, type SignedEntry } from "../src/protocol/chain.ts";
import { createSeries, readContributions } from "../src/protocol/series.ts";
import type { ObservatoryEvent, ObservatoryOrder } from "../src/ui/observatory-link.ts";
import { soloCrew } from "../src/update/solo.ts";
import { loadMergeKernel } from "../src/wasm/merge.ts";

type RoundOrder = Extract<ObservatoryOrder, { readonly type: "round" }>;

const series = createSeries();
let chain = EMPTY_CHAIN;
let broken = false;
let following = false;
/** Asked for again while it was read. */
let again = false;
/** The round asked for last, and whether one is being read. */
let wanted: RoundOrder | null = null;
let reading = false;

function tell(event: ObservatoryEvent): void {
  self.postMessage(event);
}

async function follow(relay: string): Promise<void> {
  const fetchLedger = createLedgerFetcher(relay);
  for (;;) {
    const page = await fetchLedger(chain.length);
    for (const bytes of page.entries) {
      const linked = linkEntry(chain, bytes);
      if (!linked.ok) {
        broken = true;
        tellAdded(page.length);
        tell({ type: "broken", entry: chain.length, detail: linked.detail });
        return;
      }
      chain = linked.value.chain;
      series.take(linked.value.entry);
    }
    tellAdded(page.length);
    if (page.entries.length === 0 || chain.length >= page.length) {
      return;
    }
  }
}

/** Follows to the end, and once more when that was asked for meanwhile. */
async function followOn(relay: string): Promise<void> {
  again = true;
  if (following || broken) {
    return;
  }
  following = true;
  while (again && !broken) {
    again = false;
    await follow(relay).catch((error: unknown) => tell({ type: "trouble", sentence: explain(error) }));
  }
  following = false;
}

function tellAdded(length: number): void {
  tell({ type: "added", ...series.drain(), entries: chain.length, length, last: chain.digest });
}

/** Reads the rounds that are asked for, one at a time, those overtaken meanwhile not at all. */
async function readRounds(): Promise<void> {
  reading = true;
  for (let order = wanted; order !== null; order = wanted) {
    wanted = null;
    const { from } = order;
    const answer = await readRound(order).catch((error: unknown): ObservatoryEvent => {
      return { type: "unread", from, sentence: explain(error) };
    });
    if (!isOvertaken()) {
      tell(answer);
    }
  }
  reading = false;
}

async function readRound({ relay, from, to }: RoundOrder): Promise<ObservatoryEvent> {
  const fetchLedger = createLedgerFetcher(relay);
  const entries: SignedEntry[] = [];
  for (let at = from; at < to && !isOvertaken();) {
    const page = await fetchLedger(at, to - at);
    if (page.entries.length === 0) {
      throw new HeddleError("unreachable", `Cannot read the ledger: entry ${at} does not come`);
    }
    entries.push(...page.entries.map(decodeEntry).flatMap((read) => (read.ok ? [read.value] : [])));
    at += page.entries.length;
  }
  return { type: "contributions", from, records: readContributions(entries, series.clientOf) };
}

function isOvertaken(): boolean {
  return wanted !== null;
}

/** Whether this browser checks Ed25519 signatures here: insecure pages and old browsers do not. */
async function canVerify(): Promise<boolean> {
  return createPair(false).then(
    () => true,
    () => false,
  );
}

async function verify({ relay, seen }: Extract<ObservatoryOrder, { type: "verify" }>): Promise<void> {
  const verification = await verifyRun({
    fetchLedger: createLedgerFetcher(relay),
    fetchBlob: createBlobFetcher({ origin: relay, fetch: observe }),
    verify: (await canVerify()) ? verifySignature : null,
    openCrew: soloCrew(await loadMergeKernel()),
    seen,
    tell: (progress) => tell({ type: "progress", progress }),
  });
  tell({ type: "verified", verification });
}

/** What the relay serves now, not what this browser has kept of it, and apart from the run's own traffic. */
function observe(address: string | URL | Request, init?: RequestInit): Promise<Response> {
  return fetch(`${String(address)}?observer`, { ...init, cache: "no-store" });
}

function explain(error: unknown): string {
  return error instanceof HeddleError ? error.message : `Something unforeseen happened: ${messageIn(error)}`;
}

self.addEventListener("message", ({ data: order }: MessageEvent<ObservatoryOrder>) => {
  switch (order.type) {
    case "follow":
      void followOn(order.relay);
      return;
    case "round":
      wanted = order;
      if (!reading) {
        void readRounds();
      }
      return;
    case "verify":
      void verify(order).catch((error: unknown) => tell({ type: "failed", sentence: explain(error) }));
      return;
    default:
      order satisfies never;
  }
});
