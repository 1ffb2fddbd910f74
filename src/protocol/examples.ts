/** One valid value of every kind that is encoded, for tests and for the golden vectors in `test/golden/protocol.json`. */
import { digestOf, type Bytes, type ContributionId, type ContributorId } from "../base/bytes.ts";
import type { Charter, Dataset } from "./charter.ts";
import { charterDigest } from "./charter-codec.ts";
import { contributionIdOf, contributorIdOf, encodeHeader, encodeReport } from "./codec.ts";
import type { LedgerEvent } from "./ledger.ts";
import { NONCE_BYTES, PROTOCOL_VERSION, PUBLIC_KEY_BYTES, SIGNATURE_BYTES_MAX } from "./limits.ts";
import type {
  Assignment,
  ContributionHeader,
  ContributorMessage,
  RelayMessage,
  ReportBody,
  VersionInfo,
} from "./messages.ts";
import type { PeerMessage } from "./peer.ts";
import { digestPieces } from "./pieces.ts";
import { sampleCharter } from "./sample.ts";

/** `length` bytes that count up from `first`. */
export function countingBytes(length: number, first = 0): Bytes {
  return Uint8Array.from({ length }, (_, i) => (first + i) & 255);
}

const corpus: Dataset = {
  name: "Counting",
  licence: "CC0-1.0",
  category: "fully-open",
  shards: [{ digest: digestOf(countingBytes(256)), bytes: 256 }],
};
export const exampleCharter: Charter = sampleCharter([corpus], { ...corpus, name: "Counting, held out" });
const run = charterDigest(exampleCharter);
const publicKey = countingBytes(PUBLIC_KEY_BYTES, 7);
const contributor: ContributorId = contributorIdOf(publicKey);
const relay = countingBytes(PUBLIC_KEY_BYTES, 200);
const signature = countingBytes(SIGNATURE_BYTES_MAX, 100);
const meeting = countingBytes(NONCE_BYTES, 80);
const payload = countingBytes(300, 9);
const baseDigest = digestOf(countingBytes(12));

export const exampleHeader: ContributionHeader = {
  run,
  contributor,
  assignment: "t3-0123456789abcdef",
  round: 3,
  baseVersion: 2,
  baseDigest,
  steps: 40,
  ahead: 10,
  tokens: 40_960,
  loss: 2.75,
  privateData: false,
  payload: { digest: digestOf(payload), bytes: payload.length },
};
const contribution: ContributionId = contributionIdOf(encodeHeader(exampleHeader));

export const exampleReport: ReportBody = {
  run,
  validator: contributorIdOf(countingBytes(PUBLIC_KEY_BYTES)),
  assignment: "v3-fedcba9876543210",
  contribution,
  assignedBefore: 3,
  assignedAfter: 2.5,
  randomBefore: 3.125,
  randomAfter: Infinity,
};

const exampleVersion: VersionInfo = {
  version: 2,
  digest: baseDigest,
  parent: digestOf(countingBytes(8)),
  update: { digest: digestOf(countingBytes(5)), bytes: 5 },
  checkpointBytes: 12,
  evalLoss: 2.875,
};

const train: Assignment = {
  type: "train",
  id: exampleHeader.assignment,
  round: 3,
  baseVersion: 2,
  baseDigest,
  seed: 4_000_000_000,
  stepsMax: 100,
  keep: 256,
  trainMs: 12_000,
};
const validate: Assignment = {
  type: "validate",
  id: exampleReport.assignment,
  round: 3,
  baseVersion: 2,
  baseDigest,
  contribution,
  author: contributor,
  authorSeed: train.seed,
  authorSteps: 40,
  privateData: false,
  among: 4,
  payload: exampleHeader.payload,
  seed: 5,
  judgeMs: 15_000,
};

export const examplePeerMessages: readonly PeerMessage[] = [
  { type: "get", blob: baseDigest },
  { type: "part", index: 4_095, bytes: countingBytes(12) },
];

export const exampleContributorMessages: readonly ContributorMessage[] = [
  {
    type: "hello",
    protocol: PROTOCOL_VERSION,
    publicKey,
    nonce: countingBytes(NONCE_BYTES, 150),
    agent: "heddle/0.1.0 (test)",
    engine: "wasm",
    device: "Größe 2 · 16 cores",
    privateData: false,
  },
  { type: "prove", signature },
  { type: "ready", version: 70_000 },
  { type: "contribute", header: encodeHeader(exampleHeader), signature, payload },
  { type: "offer", header: encodeHeader(exampleHeader), signature, pieces: digestPieces(payload, 3) },
  { type: "piece", contribution, index: 1, bytes: payload.slice(100, 200) },
  { type: "report", body: encodeReport(exampleReport), signature },
  { type: "release", assignment: train.id },
  { type: "leave" },
  { type: "serve", blob: baseDigest },
  { type: "serve", blob: null },
  { type: "seek", blob: baseDigest },
  { type: "met", meeting, outcome: "fetched", bytes: 12 },
  { type: "signal", meeting, kind: "answer", sdp: "v=0", signature },
  { type: "rtc", kind: "offer", sdp: "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\n", signature },
  { type: "ping" },
  { type: "pong" },
];

export const exampleRelayMessages: readonly RelayMessage[] = [
  { type: "challenge", nonce: countingBytes(NONCE_BYTES, 50), relay, signature },
  {
    type: "welcome",
    run,
    charter: exampleCharter,
    contributor,
    head: exampleVersion,
    earlier: [{ ...exampleVersion, version: 0, parent: null, update: null }],
  },
  {
    type: "ice",
    servers: [
      { url: "stun:stun.example.org:3478", username: null, credential: null },
      { url: "turn:[2001:db8::1]?transport=udp", username: "1800000000:0123456789abcdef", credential: "c2VjcmV0" },
    ],
  },
  { type: "assign", assignment: train },
  { type: "assign", assignment: validate },
  { type: "have", contribution, pieces: 2 },
  { type: "verdict", contribution, verdict: { type: "accepted" } },
  { type: "verdict", contribution, verdict: { type: "refused", reason: "norm-too-large" } },
  { type: "version", head: { ...exampleVersion, version: 0, parent: null, update: null } },
  { type: "refused", reason: "busy", retryMs: 30_000 },
  { type: "refused", reason: "malformed", retryMs: null },
  { type: "banned", why: "Sends noise; write to the operator" },
  { type: "meet", meeting, blob: baseDigest, peer: publicKey, asks: true },
  { type: "alone", blob: baseDigest },
  { type: "signal", meeting, kind: "offer", sdp: "v=0\r\ns=-\r\n", signature },
  { type: "rtc", kind: "answer", sdp: "v=0", signature },
  { type: "ping" },
  { type: "pong" },
];

export const exampleEvents: readonly LedgerEvent[] = [
  {
    type: "started",
    run,
    relay,
    head: { ...exampleVersion, version: 0, parent: null, update: null },
  },
  { type: "led", epoch: 7 },
  { type: "introduced", contributor, publicKey, agent: "heddle/0.1.0 (test)" },
  { type: "opened", round: 1, baseVersion: 0, seed: 12 },
  { type: "contributed", contribution, header: encodeHeader(exampleHeader), signature, norm: 1.5, wireBytes: 800 },
  { type: "closed", round: 1 },
  {
    type: "judged",
    contribution,
    verdict: { type: "accepted" },
    by: exampleReport.validator,
    losses: { assignedBefore: 3, assignedAfter: 2.5, randomBefore: 3.125, randomAfter: 3 },
  },
  { type: "judged", contribution, verdict: { type: "refused", reason: "harmful" }, by: "relay", losses: null },
  { type: "banned", contributor, why: "Sends noise; write to the operator" },
  { type: "unbanned", contributor },
  { type: "paused" },
  { type: "resumed" },
  { type: "skipped", round: 1 },
  {
    type: "merged",
    round: 2,
    head: exampleVersion,
    contributions: [contribution, contributionIdOf(countingBytes(1))],
    server: digestOf(countingBytes(3)),
    bytesUp: 2 ** 40,
    bytesDown: 1_000,
    tokensPerS: 1_234.5,
    contributors: 1,
    refused: 0,
  },
];
