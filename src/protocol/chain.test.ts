import { describe, expect, test } from "vitest";
import { concatBytes, digestOf, fromHex, type Bytes } from "../base/bytes.ts";
import { appendEntry, decodeEntry, EMPTY_CHAIN, linkEntry, verifyChain, type ChainHead } from "./chain.ts";
import { countingBytes, exampleEvents } from "./examples.ts";
import type { DeviceKey, VerifySignature } from "./keys.ts";
import type { LedgerEvent } from "./ledger.ts";
import { CONTRIBUTIONS_MAX } from "./limits.ts";

/** Not a signature that anybody should trust: whoever has the public key can make it. */
const relay = countingBytes(32, 200);
const signWith = (publicKey: Uint8Array, purpose: string, message: Uint8Array): Bytes =>
  fromHex(digestOf(concatBytes([publicKey, new TextEncoder().encode(purpose), message])));
const key: DeviceKey = {
  publicKey: relay,
  sign: async (purpose, message) => signWith(relay, purpose, message),
};
const verify: VerifySignature = async (publicKey, purpose, message, signature) =>
  digestOf(signWith(publicKey, purpose, message)) === digestOf(signature);

async function write(events: readonly LedgerEvent[]): Promise<{ readonly log: Bytes[]; readonly chain: ChainHead }> {
  const log: Bytes[] = [];
  let chain = EMPTY_CHAIN;
  for (const [i, event] of events.entries()) {
    const appended = await appendEntry(chain, event, { timeMs: 1_800_000_000_000 + i * 0.5, key });
    log.push(appended.bytes);
    chain = appended.chain;
  }
  return { log, chain };
}

describe("ledger chain", () => {
  test("verifyChain() reads what appendEntry() wrote, whole and continued", async () => {
    const { log, chain } = await write(exampleEvents);
    const whole = await verifyChain(log, { verify });
    expect(whole).toMatchObject({ ok: true, value: { chain } });
    expect(whole.ok && whole.value.entries.map((entry) => entry.event)).toEqual(exampleEvents);
    const half = await verifyChain(log.slice(0, 4), { verify });
    const rest = await verifyChain(log.slice(4), { verify, ...(half.ok ? { chain: half.value.chain } : {}) });
    expect(rest).toMatchObject({ ok: true, value: { chain } });
  });

  test("verifyChain() refuses an entry that was removed, moved, repeated or changed", async () => {
    const { log } = await write(exampleEvents);
    const at = (i: number): Bytes => log[i] as Bytes;
    for (const wrong of [log.slice(1), [at(0), at(2)], [at(0), at(0)], [at(0), at(2), at(1)]]) {
      expect(await verifyChain(wrong, { verify })).toMatchObject({ ok: false, reason: "malformed" });
    }
    for (let i = 0; i < at(2).length; i += 1) {
      const changed = at(2).slice();
      changed[i] = (changed[i] as number) ^ 1;
      expect(await verifyChain([at(0), at(1), changed, at(3)], { verify })).toMatchObject({ ok: false });
    }
  });

  test("verifyChain() with the last signature refuses a change of any byte before it, and checks one alone", async () => {
    const { log, chain } = await write(exampleEvents.slice(0, 4));
    const asked: Bytes[] = [];
    const counted: VerifySignature = async (...args) => {
      asked.push(args[3] as Bytes);
      return verify(...args);
    };
    const last = { verify: counted, signatures: "last" } as const;
    expect(await verifyChain(log, last)).toMatchObject({ ok: true, value: { chain } });
    expect(asked.length).toBe(1);
    for (const [entry, bytes] of log.entries()) {
      for (let i = 0; i < bytes.length; i += 1) {
        const changed = bytes.slice();
        changed[i] = (changed[i] as number) ^ 1;
        expect(await verifyChain(log.with(entry, changed), last)).toMatchObject({ ok: false });
      }
    }
    const forged = await appendEntry(chain, exampleEvents[4] as LedgerEvent, {
      timeMs: 1,
      key: { publicKey: relay, sign: async () => Uint8Array.of(1) },
    });
    const unsigned = { ok: false, before: [], entry: 4, reason: "bad-signature" };
    expect(await verifyChain([...log, forged.bytes], last)).toMatchObject(unsigned);
  });

  test("verifyChain() refuses a ledger that another key has signed", async () => {
    const appended = await appendEntry(EMPTY_CHAIN, exampleEvents[0] as LedgerEvent, {
      timeMs: 1,
      key: { publicKey: relay, sign: async (purpose, message) => signWith(countingBytes(32), purpose, message) },
    });
    expect(await verifyChain([appended.bytes], { verify })).toMatchObject({ ok: false, reason: "bad-signature" });
  });

  test("the entry of a merge of CONTRIBUTIONS_MAX contributions can be read again", async () => {
    const merged = exampleEvents.find((event) => event.type === "merged") as Extract<LedgerEvent, { type: "merged" }>;
    const id = digestOf(countingBytes(3)) as never;
    const event = { ...merged, contributions: Array.from({ length: CONTRIBUTIONS_MAX }, () => id) };
    const { bytes } = await appendEntry({ ...EMPTY_CHAIN, length: 1 }, event, { timeMs: 5, key });
    expect(decodeEntry(bytes)).toMatchObject({ ok: true });
  });

  test("linkEntry() demands that only the first entry is the start", async () => {
    const { bytes } = await appendEntry(EMPTY_CHAIN, exampleEvents[1] as LedgerEvent, { timeMs: 1, key });
    expect(linkEntry(EMPTY_CHAIN, bytes)).toMatchObject({ ok: false });
    expect(decodeEntry(bytes).ok).toBe(true);
  });
});
