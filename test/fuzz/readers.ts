/** Targets that read bytes in one call: every message and record of the wire, updates, the ledger, the charter, the widget's guard. */
import { decode, encode } from "@msgpack/msgpack";
import { HeddleError } from "../../src/base/assert.ts";
import { concatBytes, digestOf, floatBytes, textBytes, type Bytes } from "../../src/base/bytes.ts";
import { openNotebook } from "../../src/contributor/notebook.ts";
import { createLedgerFetcher, LENGTH_HEADER } from "../../src/net/ledger.ts";
import { checkSdp, withFewCandidates, withHostCandidates, withoutCandidates } from "../../src/net/sdp.ts";
import { appendEntry, decodeEntry, EMPTY_CHAIN, verifyChain } from "../../src/protocol/chain.ts";
import { checkCharter, decodeCharter, encodeCharter } from "../../src/protocol/charter-codec.ts";
import type { Charter } from "../../src/protocol/charter.ts";
import {
  decodeContributorMessage,
  decodeHeader,
  decodeRelayMessage,
  decodeReport,
  encodeHeader,
  encodeMessage,
  encodeReport,
} from "../../src/protocol/codec.ts";
import {
  exampleCharter,
  exampleContributorMessages,
  exampleEvents,
  exampleHeader,
  exampleRelayMessages,
  exampleReport,
} from "../../src/protocol/examples.ts";
import { readLedger, writeLedger } from "../../src/protocol/ledger-file.ts";
import { createSeries } from "../../src/protocol/series.ts";
import { createKeyRegistry } from "../../src/sim/keys.ts";
import { createMemoryDisk, createMemoryStore } from "../../src/store/memory.ts";
import { packUpdate } from "../../src/update/pack.ts";
import { samples } from "../../src/update/samples.fixture.ts";
import { unpackUpdate } from "../../src/update/unpack.ts";
import { lookAgain, judgeClick } from "../../src/widget/guard.ts";
import { checkAnswer, checkFrameMessage, checkHostMessage, WIDGET_STATES } from "../../src/widget/protocol.ts";
import { outcomeOf, type Subject, type Target } from "./fuzz.ts";

const INPUTS = 1_000_000;
/** Parameters of the updates that are unpacked: three chunks, the last one short. */
const P = 9_001;

function target(name: string, open: () => Promise<Subject> | Subject, inputs = INPUTS, inputsInTest = 500): Target {
  return { name, inputs, inputsInTest, open: async () => open() };
}

/** What throws HeddleError with a sentence refuses; anything else that is thrown is a fault. */
export async function outcomeOfCall(call: () => unknown): Promise<string> {
  try {
    await call();
    return "accepted";
  } catch (error) {
    if (error instanceof HeddleError && error.message !== "") {
      return error.code;
    }
    throw error;
  }
}

const pack = (value: unknown): Bytes => new Uint8Array(encode(value));

/** No longer lists and maps are made of a few bytes that announce them. */
const LENGTHS = { maxArrayLength: 10_000, maxMapLength: 1_000, maxStrLength: 100_000, maxBinLength: 100_000 };

/** The value in `bytes`, for what is handed values and not bytes. */
function valueIn(bytes: Bytes): { readonly value: unknown } | null {
  try {
    return { value: decode(bytes, LENGTHS) };
  } catch {
    return null;
  }
}

async function exampleEntries(): Promise<Bytes[]> {
  const key = createKeyRegistry().create("relay");
  const entries: Bytes[] = [];
  let chain = EMPTY_CHAIN;
  for (const event of exampleEvents) {
    const own = event.type === "started" ? { ...event, relay: key.publicKey } : event;
    const appended = await appendEntry(chain, own, { timeMs: 1_000 * entries.length, key });
    entries.push(appended.bytes);
    ({ chain } = appended);
  }
  return entries;
}

async function exampleFile(): Promise<Bytes> {
  const pieces: Uint8Array[] = [];
  for await (const piece of writeLedger(await exampleEntries())) {
    pieces.push(piece);
  }
  return concatBytes(pieces);
}

async function* inPieces(bytes: Bytes): AsyncGenerator<Bytes> {
  for (let at = 0; at < bytes.length; at += 1_000) {
    yield bytes.slice(at, at + 1_000);
  }
}

/** Reads a ledger as `npm run admin -- ledger verify FILE` and the observatory do, all but its signatures. */
async function readWhole(pieces: AsyncIterable<Bytes> | Iterable<Bytes>): Promise<string> {
  const entries: Bytes[] = [];
  for await (const entry of pieces) {
    entries.push(entry);
  }
  const verified = await verifyChain(entries, { verify: null });
  const series = createSeries();
  (verified.ok ? verified.value.entries : verified.before).forEach((entry) => series.take(entry));
  return verified.ok ? "accepted" : outcomeOf(verified);
}

async function refusedOr(read: () => Promise<string>): Promise<string> {
  let outcome = "";
  const thrown = await outcomeOfCall(async () => {
    outcome = await read();
  });
  return thrown === "accepted" ? outcome : thrown;
}

function updateSubject(): Subject {
  const packings = [1, 2, 3, 4, 64] as const;
  const limits = { parameters: P, keepMax: 64, bytesMax: 65_536 };
  const corpus = packings.flatMap((bits) =>
    [1, 7, 64].map((keep) => packUpdate(samples("laplace", P), { keep, bits, beta: 1 })),
  );
  return {
    corpus,
    feed: (input) => {
      const read = unpackUpdate(input, limits);
      if (read.ok && read.value.indices.length !== read.value.values.length) {
        throw new Error("An update was taken whose indices and values differ in number");
      }
      return outcomeOf(read);
    },
  };
}

function ledgerPageSubject(file: Bytes): Subject {
  let page = file;
  const fetchPage = createLedgerFetcher(
    "http://relay",
    async () => new Response(page, { headers: { [LENGTH_HEADER]: "14" } }),
  );
  return {
    corpus: [file],
    feed: (input) => {
      page = input;
      return refusedOr(async () => readWhole((await fetchPage(0)).entries));
    },
  };
}

/** A device's notebook whose one record was damaged. */
async function notebookSubject(): Promise<Subject> {
  const run = digestOf(textBytes("run"));
  const key = `contributor/${run}/notebook`;
  const disk = createMemoryDisk();
  const store = createMemoryStore({ disk });
  const params = new Float32Array(8).fill(0.5);
  const first = openNotebook(store, run);
  const pending = {
    id: digestOf(textBytes("c")),
    round: 1,
    baseVersion: 0,
    wireBytes: 3,
    pieces: 1,
    steps: 1,
    loss: 1,
  };
  const signed = { pending, header: textBytes("h"), signature: textBytes("s"), payload: textBytes("p") };
  const whole = {
    base: { digest: digestOf(floatBytes(params)), params },
    residual: new Float64Array(8),
    round: 1,
    made: 1,
    moments: { m: new Float32Array(8), v: new Float32Array(8), t: 1 },
    signed: signed as unknown as NonNullable<Parameters<typeof first.write>[0]["signed"]>,
    late: signed as unknown as NonNullable<Parameters<typeof first.write>[0]["late"]>,
  };
  await first.write({ ...whole, residual: new Float32Array(8) as never, signed: null, late: null });
  const corpus = [disk.values.get(key) as Bytes];
  await first.write(whole);
  corpus.push(disk.values.get(key) as Bytes);
  return {
    corpus,
    feed: async (input) => {
      await store.keys.set(key, input);
      const page = await openNotebook(store, run).read();
      return page.base === null && page.signed === null && page.made === 0 ? "forgotten" : "accepted";
    },
    storedBytes: () => disk.values.get(key)?.length ?? 0,
  };
}

/** What a host page may send into the widget's frame and back, and what decides whether a click counts. */
function widgetSubject(): Subject {
  const nonce = "0123456789abcdef".repeat(2);
  const state = { type: "state", state: WIDGET_STATES[3], tokensPerS: 10, tokensTotal: 1e6, accepted: 3 };
  const click = { trusted: true, seen: { visible: true, sinceMs: 0 }, shownMs: 0, nowMs: 600, width: 300, height: 200 };
  const messages = [
    { type: "heddle-port", nonce },
    { type: "theme", theme: "dark" },
    { type: "lang", lang: "de-CH" },
    { type: "size", size: "compact" },
    { type: "pause" },
    state,
    { type: "height", px: 300 },
    { click, sight: { ratio: 1, uncovered: null } },
  ];
  return {
    corpus: messages.map(pack),
    feed: (input) => {
      const read = valueIn(input);
      if (read === null) {
        return "no value";
      }
      const { value } = read;
      const taken = checkAnswer(value, nonce) ?? checkHostMessage(value) ?? checkFrameMessage(value);
      // The guard gets numbers of the browser, whatever they are, never a stranger's objects.
      const [ratio, nowMs] = [input[0] ?? 0, input[1] ?? 0].map((byte) => [Number.NaN, Infinity, byte][byte % 3]) as [
        number,
        number,
      ];
      const seen = lookAgain({ visible: false, sinceMs: 0 }, { ratio, uncovered: null }, nowMs);
      if (judgeClick({ ...click, trusted: false, seen, nowMs }) !== "ignored") {
        throw new Error("A click that no person made was not ignored");
      }
      return taken === null ? "dropped" : "accepted";
    },
  };
}

export const OFFER = [
  "v=0",
  "o=rtc 3414105112 0 IN IP4 127.0.0.1",
  "s=-",
  "t=0 0",
  "a=group:BUNDLE 0",
  "a=fingerprint:sha-256 " + Array.from({ length: 32 }, (_, i) => (i + 16).toString(16).toUpperCase()).join(":"),
  "m=application 9 UDP/DTLS/SCTP webrtc-datachannel",
  "c=IN IP4 0.0.0.0",
  "a=mid:0",
  "a=sendrecv",
  "a=sctp-port:5000",
  "a=max-message-size:65536",
  "a=setup:actpass",
  "a=ice-ufrag:Xb1V",
  "a=ice-pwd:wz3uXyOKzvJz9tT2CnKKyA",
  "a=candidate:1 1 UDP 2122317823 127.0.0.1 40000 typ host",
  "a=end-of-candidates",
  "",
].join("\r\n");

function sdpSubject(): Subject {
  const text = new TextDecoder();
  return {
    corpus: [textBytes(OFFER)],
    feed: (input) =>
      outcomeOfCall(() => {
        const sdp = text.decode(input);
        checkSdp(sdp, "offer");
        withHostCandidates(withoutCandidates(sdp), ["127.0.0.1"], 1);
        withFewCandidates(sdp);
      }),
  };
}

export const READERS: readonly Target[] = [
  target("contributor-message", () => ({
    corpus: exampleContributorMessages.map(encodeMessage),
    feed: (input) => outcomeOf(decodeContributorMessage(input)),
  })),
  target("relay-message", () => ({
    corpus: exampleRelayMessages.map(encodeMessage),
    feed: (input) => outcomeOf(decodeRelayMessage(input)),
  })),
  target("header", () => ({
    corpus: [encodeHeader(exampleHeader)],
    feed: (input) => outcomeOf(decodeHeader(input)),
  })),
  target("report", () => ({
    corpus: [encodeReport(exampleReport)],
    feed: (input) => outcomeOf(decodeReport(input)),
  })),
  target("charter", () => ({
    corpus: [encodeCharter(exampleCharter)],
    feed: (input) => outcomeOf(decodeCharter(input)),
  })),
  target("charter-file", () => ({
    corpus: [pack(exampleCharter)],
    feed: (input) => {
      const read = valueIn(input);
      return read === null ? "no value" : outcomeOf(checkCharter(read.value as Charter));
    },
  })),
  target("ledger-entry", async () => ({
    corpus: await exampleEntries(),
    feed: (input) => outcomeOf(decodeEntry(input)),
  })),
  target(
    "ledger-file",
    async () => ({
      corpus: [await exampleFile()],
      feed: (input) => refusedOr(() => readWhole(readLedger(inPieces(input)))),
    }),
    200_000,
    100,
  ),
  target("ledger-page", async () => ledgerPageSubject(await exampleFile()), 200_000, 100),
  target("update", updateSubject, INPUTS, 300),
  target("notebook", notebookSubject),
  target("widget", widgetSubject),
  target("sdp", sdpSubject),
];
