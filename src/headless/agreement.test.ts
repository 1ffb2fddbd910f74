import { expect, test } from "vitest";
import { toHex, type Digest } from "../base/bytes.ts";
import { createMemoryStore } from "../store/memory.ts";
import { keepAgreement, type AgreementOptions } from "./agreement.ts";

const relay = new Uint8Array(32).fill(1);
const other = new Uint8Array(32).fill(2);
const [run, next] = ["a".repeat(64) as Digest, "b".repeat(64) as Digest];
const { keys } = createMemoryStore();

/** A start that has met `met`; how it ended, and what was remembered. */
async function start(met: { relay: Uint8Array<ArrayBuffer>; run: Digest }, flags: Partial<AgreementOptions> = {}) {
  let remembered = 0;
  const options = { keys, relayKey: null, run: null, remembers: true, onRemembered: () => (remembered += 1) };
  const code = await keepAgreement({ ...options, ...flags })(met).then(
    () => "agreed",
    (error: { readonly code: string }) => error.code,
  );
  return [code, remembered];
}

test("a member is kept at the relay and the run that it met first, until a flag names the next", async () => {
  expect(await start({ relay: other, run: next }, { remembers: false })).toEqual(["agreed", 0]);
  expect(await start({ relay, run })).toEqual(["agreed", 1]);
  expect(await start({ relay, run })).toEqual(["agreed", 0]);
  expect(await start({ relay: other, run })).toEqual(["consent", 0]);
  expect(await start({ relay, run: next })).toEqual(["consent", 0]);
  expect(await start({ relay: other, run: next }, { run: next })).toEqual(["consent", 0]);
  expect(await start({ relay, run: next }, { run: next })).toEqual(["agreed", 1]);
  expect(await start({ relay, run })).toEqual(["consent", 0]);
  expect(await start({ relay: other, run: next }, { relayKey: toHex(other) })).toEqual(["agreed", 1]);
  expect(await start({ relay, run: next })).toEqual(["consent", 0]);
});

test("flags hold for everybody, and nothing else does for whom nothing is remembered", async () => {
  const open = { remembers: false };
  expect(await start({ relay, run })).toEqual(["consent", 0]);
  expect(await start({ relay, run }, open)).toEqual(["agreed", 0]);
  expect(await start({ relay, run }, { ...open, run: next })).toEqual(["consent", 0]);
  expect(await start({ relay, run }, { ...open, relayKey: toHex(other) })).toEqual(["consent", 0]);
});
