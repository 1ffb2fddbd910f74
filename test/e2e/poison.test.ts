/**
 * Poisoned contributions against a real relay with an honest contributor beside: each is refused with the right reason, none
 * enters the base, and the honest one's work goes on being accepted. The same liar's honest work is accepted too, so that
 * the refusals are known to be about the poison.
 */
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Bytes, Digest } from "../../src/base/bytes.ts";
import { createRng } from "../../src/base/rng.ts";
import { median } from "../../src/base/statistics.ts";
import { createLedgerFetcher } from "../../src/net/ledger.ts";
import { decodeEntry } from "../../src/protocol/chain.ts";
import { decodeHeader } from "../../src/protocol/codec.ts";
import { openEmbeddedStore } from "../../src/store/embedded.ts";
import { packUpdate } from "../../src/update/pack.ts";
import { unpackUpdate } from "../../src/update/unpack.ts";
import { updateNorm } from "../../src/update/delta.ts";
import { joinAsLiar, type Liar } from "./liar.ts";
import { startRelay, temporaryFolder, type RunningRelay } from "./processes.ts";

const folder = temporaryFolder();
let relay: RunningRelay;
let liar: Liar;

beforeAll(async () => {
  relay = await startRelay({ dir: folder.path });
  liar = await joinAsLiar(relay.origin);
});
afterAll(async () => {
  await relay.stop("SIGKILL");
  folder[Symbol.dispose]();
});

const pack = (values: Float32Array): Bytes => packUpdate(values, liar.charter.uplink);

test("an honest update is accepted", async () => {
  const { header, delta } = await liar.work();
  expect(await liar.send(header, pack(delta))).toBe("accepted");
});

test("the same contribution again counts once, and its content under another header is refused as replayed", async () => {
  const { header, delta } = await liar.work();
  const payload = pack(delta);
  expect(await liar.send(header, payload)).toBe("accepted");
  expect(["accepted", "replayed"]).toContain(await liar.repeat());
  const { header: later } = await liar.work();
  expect(await liar.send(later, payload)).toBe("replayed");
});

test("random noise of a plausible norm is refused", async () => {
  const { header, delta } = await liar.work();
  const rng = createRng("noise", 7);
  const noise = Float32Array.from({ length: delta.length }, () => rng.normal());
  const packed = unpackUpdate(pack(noise), { parameters: delta.length, keepMax: 4096 });
  // How far others go depends on the machine: the public ledger tells the norm of what they sent.
  const { entries } = await createLedgerFetcher(relay.origin)(0);
  const norms = entries.map(decodeEntry).flatMap((read) => {
    const event = read.ok ? read.value.event : null;
    return event?.type === "contributed" ? [event.norm] : [];
  });
  const scale = packed.ok ? (5 * median(norms)) / updateNorm(packed.value) : 0; // half of what would be refused for its norm
  expect(scale).toBeGreaterThan(0);
  expect(["no-improvement", "harmful"]).toContain(await liar.send(header, pack(noise.map((value) => value * scale))));
});

test("a sign-flipped update is refused", async () => {
  const { header, delta } = await liar.work();
  expect(["no-improvement", "harmful"]).toContain(await liar.send(header, pack(delta.map((value) => -value))));
});

test("an update of 100 times the norm is refused for its norm", async () => {
  const { header, delta } = await liar.work();
  // A hundred times the others' norm is a thousand times its own, as above.
  expect(await liar.send(header, pack(delta.map((value) => 1_000 * value)))).toBe("norm-too-large");
});

test("an update that decodes to NaN is refused", async () => {
  const { header, delta } = await liar.work();
  // Rounded updates cannot say NaN; exact ones can, and a liar may send one.
  const exact = packUpdate(Float64Array.from(delta), { keep: 4096, bits: 64, beta: 0 });
  new DataView(exact.buffer).setFloat64(exact.length - 8, Number.NaN, true);
  expect(["not-finite", "malformed", "oversized"]).toContain(await liar.send(header, exact));
});

test("an update from another base is refused", async () => {
  const { header, delta } = await liar.work();
  expect(await liar.send({ ...header, baseDigest: "ab".repeat(32) as Digest }, pack(delta))).toBe("wrong-base");
});

test("a truncated update is refused", async () => {
  const { header, delta } = await liar.work();
  const whole = pack(delta);
  expect(await liar.send(header, whole.slice(0, whole.length - 40))).toBe("truncated");
});

test("an oversized update is refused", async () => {
  const { header } = await liar.work();
  expect(await liar.send(header, new Uint8Array(200_000))).toBe("oversized");
});

test("work that was not assigned to it is refused", async () => {
  const { header, delta } = await liar.work();
  expect(await liar.send({ ...header, assignment: "someone-elses" }, pack(delta))).toBe("not-assigned");
});

test("rubbish does not hurt the relay", async () => {
  const rubbish = await joinAsLiar(relay.origin);
  const rng = createRng("rubbish", 3);
  for (let i = 0; i < 50; i += 1) {
    rubbish.sendRaw(Uint8Array.from({ length: 1 + rng.below(400) }, () => rng.below(256)));
  }
  const { header, delta } = await liar.work();
  expect(await liar.send(header, pack(delta))).toBe("accepted");
});

test("nothing that was refused is in the base, and the honest contributor's work is", async () => {
  expect(await relay.stop("SIGINT")).toBe(0);
  const store = await openEmbeddedStore(join(folder.path, "relay"));
  const events = (await store.log.read(0, await store.log.length())).map((bytes) => {
    const entry = decodeEntry(bytes);
    return entry.ok ? entry.value.event : undefined;
  });
  await store.close();
  const merged = new Set(events.flatMap((event) => (event?.type === "merged" ? event.contributions : [])));
  const refused = events.flatMap((event) =>
    event?.type === "judged" && event.verdict.type === "refused" ? [event.contribution] : [],
  );
  expect(refused.filter((id) => merged.has(id))).toEqual([]);
  const authors = events.flatMap((event) => {
    const header =
      event?.type === "contributed" && merged.has(event.contribution) ? decodeHeader(event.header) : undefined;
    return header?.ok === true ? [header.value.contributor] : [];
  });
  expect(authors.filter((author) => author === liar.contributor).length).toBe(3);
  expect(authors.filter((author) => author !== liar.contributor).length).toBeGreaterThan(0);
});
