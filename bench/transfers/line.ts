/**
 * The line of `bench/transfer.ts`, a process of its own, so that neither end pays for it or waits with it: packets of WebRTC links pass in
 * order, each `delayMs` after it came, and those are lost that chance says. Arguments: milliseconds, percent. What it did not do in time,
 * and what the system dropped because nobody read it, is told: then the figures are not those of such a line.
 */
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { createHistogram } from "node:perf_hooks";
import process from "node:process";
import { createRng } from "../../src/base/rng.ts";
import { outsideAddresses } from "../../src/net/addresses.ts";
import { withHostCandidates } from "../../src/net/sdp.ts";
import { candidatePort } from "../../test/fixtures/line.ts";
import { answerAll } from "./asked.ts";

/** An answer's candidates are to be replaced by a new port of this line, or it is to tell what was seen until now. */
export type LineQuestion = { readonly type: "bend"; readonly sdp: string } | { readonly type: "look" };

export interface LineSeen {
  readonly packets: number;
  /** By chance, as was asked for. */
  readonly lost: number;
  /** There were QUEUE_PACKETS_MAX on their way. */
  readonly overflowed: number;
  /** Records of data that came behind a newer one. */
  readonly outOfOrder: number;
  /** By the system, of any process here: a socket's buffer was full. */
  readonly droppedBySystem: number;
  /** How much longer than `delayMs` packets took. */
  readonly lateMs: { readonly p50: number; readonly p99: number; readonly max: number };
  readonly processorMs: number;
}

const HOST = "127.0.0.1";
/** Where a browser's packets go, which do not go to loopback's. */
const ADDRESSES = outsideAddresses();
/** Of one link, each way: 25 ms of 800 MB/s. */
const QUEUE_PACKETS_MAX = 16_384;
/** As much as a link may have on its way, and more: who wakes late finds all of it. */
const BUFFER_BYTES = 4 * 1_048_576;
/** A record of DTLS 1.2 says what it is and counts itself, in the clear. */
const DTLS_DATA = 23;
const DTLS_SEQUENCE_AT = 5;

const [delayMs = 0, lossPercent = 0] = process.argv.slice(2).map(Number);
const rng = createRng("line");
const lateUs = createHistogram();
let [packets, lost, overflowed, outOfOrder] = [0, 0, 0, 0];
const droppedBefore = await droppedBySystem();

/** Sends what it is given when `delayMs` have passed. */
function createDelay(send: (packet: Buffer) => void): (packet: Buffer) => void {
  const queue: { readonly packet: Buffer; readonly dueMs: number }[] = [];
  let timer: NodeJS.Timeout | undefined;
  let newest = -1;
  const go = (): void => {
    timer = undefined;
    for (let next = queue[0]; next !== undefined; next = queue[0]) {
      const aheadMs = next.dueMs - performance.now();
      if (aheadMs > 0) {
        timer = setTimeout(go, aheadMs);
        return;
      }
      lateUs.record(Math.max(1, Math.round(-1_000 * aheadMs)));
      send(next.packet);
      queue.shift();
    }
  };
  return (packet) => {
    packets += 1;
    if (packet[0] === DTLS_DATA) {
      const sequence = packet.readUIntBE(DTLS_SEQUENCE_AT, 6);
      outOfOrder += Number(sequence < newest);
      newest = Math.max(newest, sequence);
    }
    if (rng.float() < lossPercent / 100) {
      lost += 1;
    } else if (queue.length === QUEUE_PACKETS_MAX) {
      overflowed += 1;
    } else {
      queue.push({ packet, dueMs: performance.now() + delayMs });
    }
    if (timer === undefined) {
      go();
    }
  };
}

async function bend(sdp: string): Promise<string> {
  const target = candidatePort(sdp);
  const options = { type: "udp4", recvBufferSize: BUFFER_BYTES, sendBufferSize: BUFFER_BYTES } as const;
  const [outer, inner] = [createSocket(options), createSocket(options)];
  outer.bind(0);
  inner.bind(0, HOST);
  await Promise.all([once(outer, "listening"), once(inner, "listening")]);
  let client = { address: HOST, port: 0 };
  const there = createDelay((packet) => inner.send(packet, target, HOST));
  const back = createDelay((packet) => outer.send(packet, client.port, client.address));
  outer.on("message", (packet, from) => {
    if (from.address !== HOST && !ADDRESSES.includes(from.address)) {
      return; // of another machine
    }
    client = from;
    there(packet);
  });
  inner.on("message", back);
  return withHostCandidates(sdp, [HOST, ...ADDRESSES], outer.address().port);
}

async function look(): Promise<LineSeen> {
  const at = (percent: number): number => lateUs.percentile(percent) / 1_000;
  const { user, system } = process.cpuUsage();
  return {
    packets,
    lost,
    overflowed,
    outOfOrder,
    droppedBySystem: (await droppedBySystem()) - droppedBefore,
    lateMs: { p50: at(50), p99: at(99), max: at(100) },
    processorMs: (user + system) / 1_000,
  };
}

/** "RcvbufErrors" of all UDP sockets of this Linux; 0 elsewhere. */
async function droppedBySystem(): Promise<number> {
  const text = await readFile("/proc/net/snmp", "utf8").catch(() => "");
  const [names = [], values = []] = text
    .split("\n")
    .filter((line) => line.startsWith("Udp:"))
    .map((line) => line.split(" "));
  return Number(values[names.indexOf("RcvbufErrors")] ?? 0);
}

answerAll((question: LineQuestion): Promise<string | LineSeen> =>
  question.type === "bend" ? bend(question.sdp) : look(),
);
