/**
 * Verifying a run from outside, by whoever can read its ledger and its blobs: every entry first (`check.ts`), then the versions
 * (`replay.ts`). It says what agrees, what differs, and what cannot be known here and why. Where a relay's ledger has been seen
 * before, its last entry then is compared with the same entry now: a chain alone does not show that it was written anew.
 */
import { HeddleError } from "../base/assert.ts";
import { toHex, type Bytes, type Digest } from "../base/bytes.ts";
import type { VerifySignature } from "../protocol/keys.ts";
import { beginCheck, checkPage, PAGE_ENTRIES, type LedgerCheck } from "./check.ts";
import { finding, plural, type Finding } from "./finding.ts";
import { replay, type ReplayPorts } from "./replay.ts";

/** An entry of a ledger that was seen at some time. */
export interface SeenEntry {
  readonly entry: number;
  readonly digest: Digest;
}

export interface VerifyPorts extends ReplayPorts {
  /** Entries from a number on, as many as come at a time, and how many there are in all. */
  readonly fetchLedger: (from: number) => Promise<{ readonly entries: readonly Bytes[]; readonly length: number }>;
  /** Null where this machine cannot check signatures. */
  readonly verify: VerifySignature | null;
  /** The last entry at an earlier look at this run; null for the first. */
  readonly seen: SeenEntry | null;
}

export interface Verification {
  readonly findings: readonly Finding[];
  /** The run that the ledger tells of; null where it does not begin one. */
  readonly run: Digest | null;
  /** Entries that were read and agree, and the last one's digest; null where none does. */
  readonly last: { readonly entry: number; readonly digest: Digest } | null;
  /** The key that signs the ledger, as hexadecimal digits. */
  readonly relay: string | null;
}

/** Rejects with HeddleError where the ledger cannot be fetched; whatever is wrong with it is a finding. */
export async function verifyRun(ports: VerifyPorts): Promise<Verification> {
  const { check, fault, memory } = await checkEntries(ports);
  const { chain, durable } = check;
  const last = chain.length === 0 ? null : { entry: chain.length - 1, digest: chain.digest };
  const relay = chain.relay === null ? null : toHex(chain.relay);
  const run = durable?.run ?? null;
  if (fault !== null || durable === null) {
    const nothing = finding("ledger", "differs", "The ledger has no entries.");
    return { findings: [...memory, fault ?? nothing], run, last, relay };
  }
  const replayed = await replay(check, ports);
  return { findings: [...memory, ...ledgerFindings(check, ports), ...replayed, UNKNOWABLE], run, last, relay };
}

const UNKNOWABLE = finding(
  "training",
  "unchecked",
  "Not checked: what contributors trained on, and the losses by which they were judged. The ledger says who measured each; it does not hold validators’ signatures.",
);

interface Checked {
  readonly check: LedgerCheck;
  readonly fault: Finding | null;
  /** What the comparison with an earlier look says. */
  readonly memory: readonly Finding[];
}

async function checkEntries({ fetchLedger, verify, seen, tell }: VerifyPorts): Promise<Checked> {
  let check = beginCheck();
  let memory: Finding[] = seen === null ? [] : [missing(seen)];
  for (let from = 0, length = 1; from < length;) {
    const page = await fetchLedger(from);
    length = page.length;
    if (page.entries.length === 0 && from < length) {
      throw new HeddleError("unreachable", `Cannot read the ledger: entry ${from} of ${length} does not come`);
    }
    for (let at = 0; at < page.entries.length;) {
      const to = Math.min(at + PAGE_ENTRIES, page.entries.length, untilSeen(seen, from + at) + at);
      const checked = await checkPage(check, page.entries.slice(at, to), verify);
      if (!checked.ok) {
        const { entry, detail } = checked.fault;
        return {
          check,
          fault: finding("ledger", "differs", `Entry ${entry} does not hold: ${detail}.`, { entry }),
          memory,
        };
      }
      check = checked.value;
      if (seen !== null && check.chain.length === seen.entry + 1) {
        memory = [compare(seen, check.chain.digest)];
      }
      at = to;
      tell({
        sentence: `Checking entry ${(from + at).toLocaleString("en")} of ${length.toLocaleString("en")}`,
        done: from + at,
        total: length,
      });
    }
    from += page.entries.length;
  }
  return { check, fault: null, memory };
}

/** Entries until the seen one is the last, where it is still to come. */
function untilSeen(seen: SeenEntry | null, at: number): number {
  return seen === null || seen.entry < at ? Number.POSITIVE_INFINITY : seen.entry + 1 - at;
}

function missing({ entry }: SeenEntry): Finding {
  const sentence = `This browser has seen entry ${entry} of this run before, and the ledger does not reach it now: it was cut, or written anew.`;
  return finding("memory", "differs", sentence, { entry });
}

function compare({ entry, digest }: SeenEntry, now: Digest): Finding {
  if (now === digest) {
    const sentence = `Entry ${entry}, the last when this browser looked before, is still the same: history was not written anew.`;
    return finding("memory", "agrees", sentence);
  }
  const sentence = `Entry ${entry} was ${digest} when this browser looked before, and is ${now} now: history was written anew.`;
  return finding("memory", "differs", sentence, { entry });
}

function ledgerFindings({ chain, signed, unknown }: LedgerCheck, { verify }: VerifyPorts): Finding[] {
  const count = chain.length;
  const entries = plural(count, "entry", "entries");
  const whole = `${entries}, each holding the digest of the one before, and none contradicting those before it.`;
  const findings = [finding("ledger", "agrees", whole, { count })];
  if (verify === null) {
    const why = "it needs https, or localhost, and a browser of 2025 or newer";
    const sentence = `Not checked: signatures. This browser cannot check them (Ed25519) on this page: ${why}.`;
    return [...findings, finding("signatures", "unchecked", sentence, { count })];
  }
  findings.push(finding("signatures", "agrees", `All ${entries} carry the relay’s signature.`, { count }));
  if (signed > 0) {
    const sentence = `${plural(signed, "contribution")} carry their authors’ signatures, and every merge took exactly the accepted ones of its round.`;
    findings.push(finding("contributors", "agrees", sentence, { count: signed }));
  }
  if (unknown > 0) {
    const sentence = `Not checked: ${plural(unknown, "contribution")} of devices that were introduced too long ago.`;
    findings.push(finding("contributors", "unchecked", sentence, { count: unknown }));
  }
  return findings;
}
