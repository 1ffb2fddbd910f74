/** What `npm run faults` rests on: a bad line does what it says, and the oracle sees a ledger in which a rule is broken. */
import { once } from "node:events";
import { connect, createServer, type AddressInfo, type Socket } from "node:net";
import { afterEach, expect, test } from "vitest";
import { present } from "../src/base/assert.ts";
import { decodeEntry } from "../src/protocol/chain.ts";
import type { RelayMessage } from "../src/protocol/messages.ts";
import { createRtcAnswerer, dialRtcNode } from "../src/net/rtc-node.ts";
import type { Attach } from "../src/net/link.ts";
import type { Told } from "../src/sim/oracle.ts";
import { FAIR, openLine, type HalfOpen, type Line } from "./fixtures/line.ts";
import { littleCharter, nameOf, startLittleRun } from "./fixtures/little-run.ts";
import { blindSpots, lostOf } from "./faults/verdict.ts";

const closing: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) {
    await close();
  }
});

interface Conversation {
  readonly line: Line;
  readonly near: Socket;
  readonly far: Socket;
  /** What each end was told by the other; "." is the end. */
  readonly heard: { near: string; far: string };
}

/** A connection over a line. */
async function converse(): Promise<Conversation> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const line = await openLine({ ports: () => [1, (server.address() as AddressInfo).port], seed: 3 });
  const accepted = once(server, "connection") as Promise<[Socket]>;
  const near = connect(Number(new URL(line.origin).port), "127.0.0.1");
  const [far] = await accepted;
  closing.push(
    () => server.close(),
    () => line.close(),
    () => far.destroy(),
    () => near.destroy(),
  );
  const heard = { near: "", far: "" };
  for (const [name, socket] of Object.entries({ near, far }) as ["near" | "far", Socket][]) {
    socket.on("error", () => undefined); // a reset
    socket.on("data", (bytes) => {
      heard[name] += bytes.toString();
    });
    socket.on("close", () => {
      heard[name] += ".";
    });
  }
  return { line, near, far, heard };
}

const soon = { timeout: 15_000, interval: 5 };

test("a line passes on what is said, late and in order, and the end after it", async () => {
  const { line, near, far, heard } = await converse();
  near.write("a");
  await expect.poll(() => heard.far, soon).toBe("a");
  line.set({ ...FAIR, delayMs: 60 });
  const begunMs = performance.now();
  far.write("b");
  setTimeout(() => far.end("c"), 5);
  await expect.poll(() => heard.near, soon).toBe("bc.");
  expect(performance.now() - begunMs).toBeGreaterThan(59);
});

test("a segment that is lost holds what follows it", async () => {
  const { line, near, heard } = await converse();
  line.set({ ...FAIR, lossShare: 1 });
  const begunMs = performance.now();
  near.write("a");
  await expect.poll(() => line.counts.segmentsLost, soon).toBe(1);
  line.set(FAIR);
  near.write("b");
  await expect.poll(() => heard.far, soon).toBe("ab");
  expect(performance.now() - begunMs).toBeGreaterThan(199);
});

test("behind a cut everything waits, the end of a connection too", async () => {
  const { line, near, heard } = await converse();
  line.set({ ...FAIR, cut: true });
  near.end("a");
  await new Promise((settle) => setTimeout(settle, 50));
  expect(heard.far).toBe("");
  line.set(FAIR);
  await expect.poll(() => heard.far, soon).toBe("a.");
});

test.each<[HalfOpen, { near: string; far: string }]>([
  ["contributor", { near: "", far: "." }],
  ["relay", { near: ".", far: "" }],
  ["both", { near: "", far: "" }],
])("of a connection whose end is hidden from: %s", async (unaware, expected) => {
  const { line, near, far, heard } = await converse();
  near.write("a");
  await expect.poll(() => heard.far, soon).toBe("a");
  heard.far = "";
  line.abandon(unaware);
  near.write("b");
  far.write("c");
  await new Promise((settle) => setTimeout(settle, 50));
  expect(heard).toEqual(expected);
});

test("a WebRTC link over a line loses packets and none of its messages", async () => {
  const answerer = await createRtcAnswerer({ addresses: ["127.0.0.1"] });
  const line = await openLine({ ports: () => [], seed: 5 });
  closing.push(
    () => answerer.close("The test is over"),
    () => line.close(),
  );
  const [count, got] = [25, [] as number[]];
  const listen: Attach = () => ({ message: (bytes) => got.push(bytes.length), closed: () => undefined });
  const silent: Attach = () => ({ message: () => undefined, closed: () => undefined });
  line.set({ ...FAIR, lossShare: 0.1, delayMs: 2, reorderShare: 0.1, reorderMs: 20 });
  const link = await line.overUdp(dialRtcNode, {
    exchange: (offer) => answerer.answer(offer, listen),
    attach: silent,
  });
  closing.push(() => link.close("The test is over"));
  const sent = Array.from({ length: count }, (_, i) => 5_000 + i);
  sent.forEach((bytes) => link.send(new Uint8Array(bytes)));
  await expect.poll(() => got, { timeout: 30_000 }).toEqual(sent);
  expect(line.counts.lost).toBeGreaterThan(5);
  expect(line.counts.late).toBeGreaterThan(5);
});

test("the oracle sees every rule that is broken for one contribution of a good ledger", async () => {
  const run = await startLittleRun(littleCharter());
  run.contributor.start();
  await run.until(() => run.host.head().version >= 3);
  await run.host.settled();
  const entries = await run.store.log.read(0, await run.store.log.length());
  const isVerdict = (message: RelayMessage): message is Extract<RelayMessage, { type: "verdict" }> =>
    message.type === "verdict";
  const told = run.down.filter(isVerdict).map(({ contribution, verdict }): Told => {
    return { contributor: nameOf(run), contribution, verdict, written: true };
  });
  expect(await blindSpots(littleCharter(), told, entries)).toEqual([]);
  const judged = entries.flatMap((bytes) => {
    const read = decodeEntry(bytes);
    return read.ok && read.value.event.type === "judged" ? [read.value.event.contribution] : [];
  });
  const lost = present(told[0], "a verdict").contribution;
  expect(lostOf(told, new Set(judged))).toEqual([]);
  expect(lostOf(told, new Set(judged.filter((id) => id !== lost)))).toMatchObject([{ detail: lost }]);
});
