/**
 * How fast a large update crosses WebRTC, beside a raw data channel: `npm run bench transfer`, or with megabytes (default 50), rounds
 * (default 10) and "chromium": `npm run bench transfer 10 5 chromium`. The near end is this process, or headless Chromium, the
 * far end a process as a relay is one, on this machine. Prints JSON. `npm run bench transfer 50 10 chromium 50`: each packet passes a third
 * process (`transfers/line.ts`) and is late, so that the round trip takes 50 ms; with a number more that many percent are lost.
 *
 * Up is towards the far end, down is back. In a round the raw channel and the link take turns, up and down. The raw channel stays open, as
 * the link up does, which carries what a contribution is: the offer, pieces, their confirmations; a transfer is over when
 * the last piece has been checked and kept, in memory, or, in "onDiskUpMBPerS", as the relay does. Down comes what crosses WebRTC that way: a
 * checkpoint as contributors serve and fetch it, over a new link each time, from when that is open until each part has been checked.
 * A line on which contributors would give that up (131 kB/s, 4 s without a byte) ends the benchmark. `wholeMs` more are taken to check
 * the SHA-256 of the whole, too. Ratios are formed within a round; the spread is half the distance between
 * the quartiles, and `trend` the median of the last three transfers' speeds over that of the first three. `processorMsPerMB` is this
 * process' processor time, the delay's and dialling the links down included. `overheadPercent`: all bytes that the link carried, both ways, beyond the payload.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { cpus, loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { HeddleError } from "../src/base/assert.ts";
import { median, quantile } from "../src/base/statistics.ts";
import { dialRtcNode } from "../src/net/rtc-node.ts";
import { withoutCandidates } from "../src/net/sdp.ts";
import { readWhole } from "./load/options.ts";
import { startAsked } from "./transfers/asked.ts";
import { linkEnd, payloadOf, type Dial, type LinkEnd } from "./transfers/ends.ts";
import type { Question } from "./transfers/far.ts";
import type { LineQuestion, LineSeen } from "./transfers/line.ts";
import { dialRaw } from "./transfers/node.ts";

const DISK_ROUNDS = 3;

const [, , givenMegabytes = 50, givenRounds = 10, near = "node", givenMs = 0, givenPercent = 0] = process.argv;
const megabytes = readWhole("as many megabytes as", givenMegabytes, { most: 1_000 });
const rounds = readWhole("as many rounds as", givenRounds, { most: 1_000 });
if (near !== "node" && near !== "chromium") {
  throw new HeddleError("bad-input", `Cannot measure: got "${near}", need "node" or "chromium"`);
}
const roundTripMs = readWhole("a round trip in ms of", givenMs, { least: 0, most: 999 });
const lossPercent = Number(givenPercent);
if (!(lossPercent >= 0 && lossPercent < 50)) {
  throw new HeddleError("bad-input", `Cannot measure: got a loss of ${givenPercent} percent, need less than 50`);
}
const line =
  roundTripMs === 0
    ? undefined
    : startAsked<LineQuestion, string | LineSeen>("line.ts", [roundTripMs / 2, lossPercent]);
const payload = payloadOf(megabytes * 1_000_000);
const dir = mkdtempSync(join(tmpdir(), "heddle-bench-"));
const far = startAsked<Question, string>("far.ts", [payload.length, dir]);

try {
  const machine = { cpu: cpus()[0]?.model, cores: cpus().length, load: loadavg().map(rounded) };
  const measured = near === "chromium" ? await inChromium() : await inNode();
  const told = line === undefined ? {} : { lossPercent, line: await line.ask({ type: "look" }) };
  const printed = { ...machine, near, megabytes, rounds, roundTripMs, ...told, ...measured };
  process.stdout.write(`${JSON.stringify(printed, null, 2)}\n`);
} finally {
  await Promise.all([line?.stop(), far.stop()]);
  rmSync(dir, { recursive: true });
}
process.exit(0); // raw channels would keep it

async function inNode(): Promise<object> {
  const raw = await dialRaw({ bytes: payload.length, exchange: (offer) => ask("raw", offer) });
  const linked = await dialLink("memory");
  const spentMs = { raw: { send: 0, receive: 0 }, link: { send: 0, receive: 0 } };
  const compared = await compare(async (which, way) => {
    const end = which === "raw" ? raw : linked;
    const before = process.cpuUsage();
    const tookMs = await end[way]();
    const { user, system } = process.cpuUsage(before);
    spentMs[which][way] += (user + system) / 1_000;
    await end.rest();
    return tookMs;
  });
  const processorOf = ({ send, receive }: Record<Way, number>): object => ({
    sending: rounded(send / rounds / megabytes),
    receiving: rounded(receive / rounds / megabytes),
  });
  const carried = linked.carried();
  const onDisk = await dialLink("disk");
  const disk: number[] = [];
  for (let round = 0; round < DISK_ROUNDS; round += 1) {
    disk.push(speedOf(await onDisk.send()));
    await onDisk.rest();
  }
  return {
    ...compared,
    processorMsPerMB: { link: processorOf(spentMs.link), raw: processorOf(spentMs.raw) },
    overheadPercent: overheadOf(carried),
    onDiskUpMBPerS: rounded(median(disk)),
    wholeMs: rounded(median(linked.wholeMs)),
  };
}

async function inChromium(): Promise<object> {
  const { openBrowserPage } = await import("../src/store/browser.fixture.ts"); // only here: its heap would be marked with every collection
  const { page, close } = await openBrowserPage(new URL("transfers/page.ts", import.meta.url));
  try {
    await page.exposeFunction("askFar", ask);
    await page.evaluate((bytes) => globalThis.openEnds(bytes), payload.length);
    const compared = await compare((which, way) =>
      page.evaluate(([of, to]) => globalThis.transfer(of, to), [which, way] as const),
    );
    return { ...compared, overheadPercent: overheadOf(await page.evaluate(() => globalThis.carried())) };
  } finally {
    await close();
  }
}

type Which = "raw" | "link";
type Way = "send" | "receive";

/** Milliseconds of one transfer after the other; who goes first changes from round to round. */
async function compare(transfer: (which: Which, way: Way) => Promise<number>): Promise<object> {
  const speeds: Record<Which, Record<Way, number[]>> = {
    raw: { send: [], receive: [] },
    link: { send: [], receive: [] },
  };
  for (let round = 0; round < rounds; round += 1) {
    for (const which of round % 2 === 0 ? (["raw", "link"] as const) : (["link", "raw"] as const)) {
      for (const way of ["send", "receive"] as const) {
        speeds[which][way].push(speedOf(await transfer(which, way)));
      }
    }
  }
  const { link, raw } = speeds;
  return { up: summed(link.send, raw.send), down: summed(link.receive, raw.receive) };
}

async function ask(kind: Question["kind"], offer: string): Promise<string> {
  const asked = line === undefined ? offer : withoutCandidates(offer); // else the far end would find a way around the line
  const sdp = await far.ask({ kind, offer: asked });
  return line === undefined ? sdp : ((await line.ask({ type: "bend", sdp })) as string);
}

function dialLink(kind: "memory" | "disk"): Promise<LinkEnd> {
  const dialTo =
    (to: Question["kind"]): Dial =>
    (attach) =>
      dialRtcNode({ exchange: (offer) => ask(to, offer), attach });
  return linkEnd(payload, { up: dialTo(kind), down: dialTo("serve") });
}

/** MB/s */
function speedOf(tookMs: number): number {
  return payload.length / 1_000 / tookMs;
}

function overheadOf(carried: number): number {
  return rounded(100 * (carried / (2 * rounds * payload.length) - 1));
}

function summed(link: readonly number[], raw: readonly number[]): object {
  const ratios = link.map((speed, i) => speed / (raw[i] as number));
  return {
    linkMBPerS: rounded(median(link)),
    rawMBPerS: rounded(median(raw)),
    ratio: rounded(median(ratios)),
    spread: rounded((quantile(ratios, 0.75) - quantile(ratios, 0.25)) / 2),
    trend: rounded(median(link.slice(-3)) / median(link.slice(0, 3))),
    trendRaw: rounded(median(raw.slice(-3)) / median(raw.slice(0, 3))),
    inTheirOrder: link.map(rounded),
    rawInTheirOrder: raw.map(rounded),
  };
}

function rounded(value: number): number {
  return Number(value.toPrecision(3));
}
