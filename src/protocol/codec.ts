/**
 * Messages to bytes and back. Bytes from outside are walked (`scan.ts`), then decoded, then read field by field
 * (`fields.ts`); whatever is wrong with them is a returned refusal. What is signed or hashed has one canonical encoding:
 * msgpack with the fields in the order given here, every integer of at most 53 bits in its shortest form, every other number
 * as float 64, text in UTF-8, and bytes as `bin`. Reading it demands exactly those bytes.
 */
import {
  concatBytes,
  digestOf,
  fromHex,
  textBytes,
  type Bytes,
  type ContributionId,
  type ContributorId,
  type Digest,
} from "../base/bytes.ts";
import { charterReader } from "./charter-codec.ts";
import {
  binary,
  boolean,
  checked,
  decodeValue,
  digest,
  encodeValue,
  FieldError,
  integer,
  list,
  measured,
  nullable,
  oneOf,
  readCanonical,
  record,
  tagged,
  text,
  type Reader,
} from "./fields.ts";
import { iceServersReader } from "./ice.ts";
import {
  AMONG_MAX,
  ASSIGNMENT_CHARS_MAX,
  BLOB_BYTES_MAX,
  CONTRIBUTION_BYTES_MAX,
  CONTRIBUTOR_DEPTH_MAX,
  CONTRIBUTOR_VALUES_MAX,
  CONTROL_BYTES_MAX,
  COUNT_MAX,
  DURATION_MS_MAX,
  HEADER_BYTES_MAX,
  MESSAGE_BYTES_MAX,
  NONCE_BYTES,
  PIECE_BYTES,
  PIECES_MAX,
  PROTOCOL_VERSION,
  PUBLIC_KEY_BYTES,
  RELAY_DEPTH_MAX,
  RELAY_VALUES_MAX,
  REPORT_BYTES_MAX,
  SDP_CHARS_MAX,
  SIGNATURE_BYTES_MAX,
  STEPS_MAX,
  TEXT_CHARS_MAX,
  TOKENS_MAX,
  UPDATES_KEPT,
} from "./limits.ts";
import type {
  Assignment,
  ContributionHeader,
  ContributorMessage,
  Message,
  RelayMessage,
  ReportBody,
  VersionInfo,
} from "./messages.ts";
import { DIGEST_BYTES } from "./pieces.ts";
import type { ScanLimits } from "./scan.ts";
import { isReason, REASONS, type Checked, type Reason, type Verdict } from "./verdict.ts";

type Of<M extends { readonly type: string }, K extends M["type"]> = Extract<M, { readonly type: K }>;

const CONTRIBUTOR_SCAN: ScanLimits = {
  depthMax: CONTRIBUTOR_DEPTH_MAX,
  valuesMax: CONTRIBUTOR_VALUES_MAX,
  stringBytesMax: 3 * SDP_CHARS_MAX,
  binBytesMax: PIECE_BYTES,
};
const RELAY_SCAN: ScanLimits = {
  depthMax: RELAY_DEPTH_MAX,
  valuesMax: RELAY_VALUES_MAX,
  stringBytesMax: 3 * SDP_CHARS_MAX,
  binBytesMax: SIGNATURE_BYTES_MAX,
};
/** Records that travel inside a `bin`. */
const SIGNED_SCAN: ScanLimits = { depthMax: 2, valuesMax: 64, stringBytesMax: 256, binBytesMax: 0 };

const count = integer(0, COUNT_MAX);
const seed = integer(0, 2 ** 32 - 1);
const duration = integer(0, DURATION_MS_MAX);
const signature = binary(1, SIGNATURE_BYTES_MAX);

/** Digests of two pieces or more. */
const pieceDigests: Reader<Bytes> = (value, path) => {
  const bytes = binary(DIGEST_BYTES, PIECES_MAX * DIGEST_BYTES)(value, path);
  if (bytes.length % DIGEST_BYTES !== 0) {
    throw new FieldError(`Cannot read ${path}: got ${bytes.length} bytes, need a multiple of ${DIGEST_BYTES}`);
  }
  return bytes;
};

/** The name of an assignment. */
const assignmentName: Reader<string> = (value, path) => {
  const name = text(ASSIGNMENT_CHARS_MAX, { charsMin: 1 })(value, path);
  if (!/^[a-z0-9-]+$/.test(name)) {
    throw new FieldError(`Cannot read ${path}: need lower-case letters, digits and hyphens`);
  }
  return name;
};

function typeOf<const K extends string>(type: K): Reader<K> {
  return oneOf([type]);
}

/** A digest with the size of what it names. */
function blob(bytesMax: number): Reader<{ readonly digest: Digest; readonly bytes: number }> {
  return record<{ readonly digest: Digest; readonly bytes: number }>({
    digest: digest<Digest>(),
    bytes: integer(1, bytesMax),
  });
}

const reason: Reader<Reason> = (value, path) => {
  if (!isReason(value)) {
    throw new FieldError(`Cannot read ${path}: need one of ${Object.keys(REASONS).join(", ")}`);
  }
  return value;
};

export const verdictReader: Reader<Verdict> = tagged<Verdict>({
  accepted: record<Of<Verdict, "accepted">>({ type: typeOf("accepted") }),
  refused: record<Of<Verdict, "refused">>({ type: typeOf("refused"), reason }),
});

const versionFields: Reader<VersionInfo> = record<VersionInfo>({
  version: count,
  digest: digest<Digest>(),
  parent: nullable(digest<Digest>()),
  update: nullable(blob(BLOB_BYTES_MAX)),
  checkpointBytes: integer(4, BLOB_BYTES_MAX),
  evalLoss: measured,
});

/** A version has a parent and an update exactly when it is not the first. */
export const versionReader: Reader<VersionInfo> = (value, path) => {
  const info = versionFields(value, path);
  const first = info.version === 0;
  if ((info.parent === null) !== first || (info.update === null) !== first) {
    throw new FieldError(`Cannot read ${path}: version ${info.version} has the wrong parent or update`);
  }
  return info;
};

const assignmentReader: Reader<Assignment> = tagged<Assignment>({
  train: record<Of<Assignment, "train">>({
    type: typeOf("train"),
    id: assignmentName,
    round: count,
    baseVersion: count,
    baseDigest: digest<Digest>(),
    seed,
    stepsMax: integer(1, STEPS_MAX),
    keep: integer(1, 4_096),
    trainMs: duration,
  }),
  validate: record<Of<Assignment, "validate">>({
    type: typeOf("validate"),
    id: assignmentName,
    round: count,
    baseVersion: count,
    baseDigest: digest<Digest>(),
    contribution: digest<ContributionId>(),
    author: digest<ContributorId>(),
    authorSeed: seed,
    authorSteps: integer(1, STEPS_MAX),
    privateData: boolean,
    among: integer(1, AMONG_MAX),
    payload: blob(CONTRIBUTION_BYTES_MAX),
    seed,
    judgeMs: duration,
  }),
});

const headerReader: Reader<ContributionHeader> = record<ContributionHeader>({
  run: digest<Digest>(),
  contributor: digest<ContributorId>(),
  assignment: assignmentName,
  round: count,
  baseVersion: count,
  baseDigest: digest<Digest>(),
  steps: integer(1, STEPS_MAX),
  ahead: integer(0, STEPS_MAX),
  tokens: integer(1, TOKENS_MAX),
  loss: measured,
  privateData: boolean,
  payload: blob(CONTRIBUTION_BYTES_MAX),
});

const reportReader: Reader<ReportBody> = record<ReportBody>({
  run: digest<Digest>(),
  validator: digest<ContributorId>(),
  assignment: assignmentName,
  contribution: digest<ContributionId>(),
  assignedBefore: nullable(measured),
  assignedAfter: nullable(measured),
  randomBefore: measured,
  randomAfter: measured,
});

const rtcReader = record<Of<Message, "rtc">>({
  type: typeOf("rtc"),
  kind: oneOf(["offer", "answer"]),
  sdp: text(SDP_CHARS_MAX, { charsMin: 1, lines: true }),
  signature,
});
const meeting = binary(NONCE_BYTES, NONCE_BYTES);
const signalReader = record<Of<Message, "signal">>({
  type: typeOf("signal"),
  meeting,
  kind: oneOf(["offer", "answer"]),
  sdp: text(SDP_CHARS_MAX, { charsMin: 1, lines: true }),
  signature,
});
const pingReader = record<Of<Message, "ping">>({ type: typeOf("ping") });
const pongReader = record<Of<Message, "pong">>({ type: typeOf("pong") });

const contributorReader: Reader<ContributorMessage> = tagged<ContributorMessage>({
  hello: record<Of<ContributorMessage, "hello">>({
    type: typeOf("hello"),
    protocol: count,
    publicKey: binary(PUBLIC_KEY_BYTES, PUBLIC_KEY_BYTES),
    nonce: binary(NONCE_BYTES, NONCE_BYTES),
    agent: text(),
    engine: oneOf(["webgpu", "wasm", "twin"]),
    device: text(),
    privateData: boolean,
  }),
  prove: record<Of<ContributorMessage, "prove">>({ type: typeOf("prove"), signature }),
  ready: record<Of<ContributorMessage, "ready">>({ type: typeOf("ready"), version: count }),
  contribute: record<Of<ContributorMessage, "contribute">>({
    type: typeOf("contribute"),
    header: binary(1, HEADER_BYTES_MAX),
    signature,
    payload: binary(0, PIECE_BYTES),
  }),
  offer: record<Of<ContributorMessage, "offer">>({
    type: typeOf("offer"),
    header: binary(1, HEADER_BYTES_MAX),
    signature,
    pieces: pieceDigests,
  }),
  piece: record<Of<ContributorMessage, "piece">>({
    type: typeOf("piece"),
    contribution: digest<ContributionId>(),
    index: integer(0, PIECES_MAX - 1),
    bytes: binary(1, PIECE_BYTES),
  }),
  report: record<Of<ContributorMessage, "report">>({
    type: typeOf("report"),
    body: binary(1, REPORT_BYTES_MAX),
    signature,
  }),
  release: record<Of<ContributorMessage, "release">>({ type: typeOf("release"), assignment: assignmentName }),
  leave: record<Of<ContributorMessage, "leave">>({ type: typeOf("leave") }),
  serve: record<Of<ContributorMessage, "serve">>({ type: typeOf("serve"), blob: nullable(digest<Digest>()) }),
  seek: record<Of<ContributorMessage, "seek">>({ type: typeOf("seek"), blob: digest<Digest>() }),
  met: record<Of<ContributorMessage, "met">>({
    type: typeOf("met"),
    meeting,
    outcome: oneOf(["fetched", "failed", "wrong", "declined"]),
    bytes: integer(0, BLOB_BYTES_MAX),
  }),
  signal: signalReader,
  rtc: rtcReader,
  ping: pingReader,
  pong: pongReader,
});

const relayReader: Reader<RelayMessage> = tagged<RelayMessage>({
  challenge: record<Of<RelayMessage, "challenge">>({
    type: typeOf("challenge"),
    nonce: binary(NONCE_BYTES, NONCE_BYTES),
    relay: binary(PUBLIC_KEY_BYTES, PUBLIC_KEY_BYTES),
    signature,
  }),
  welcome: record<Of<RelayMessage, "welcome">>({
    type: typeOf("welcome"),
    run: digest<Digest>(),
    charter: charterReader,
    contributor: digest<ContributorId>(),
    head: versionReader,
    earlier: list(versionReader, 0, UPDATES_KEPT - 1),
  }),
  ice: record<Of<RelayMessage, "ice">>({ type: typeOf("ice"), servers: iceServersReader }),
  assign: record<Of<RelayMessage, "assign">>({ type: typeOf("assign"), assignment: assignmentReader }),
  have: record<Of<RelayMessage, "have">>({
    type: typeOf("have"),
    contribution: digest<ContributionId>(),
    pieces: integer(0, PIECES_MAX),
  }),
  verdict: record<Of<RelayMessage, "verdict">>({
    type: typeOf("verdict"),
    contribution: digest<ContributionId>(),
    verdict: verdictReader,
  }),
  version: record<Of<RelayMessage, "version">>({ type: typeOf("version"), head: versionReader }),
  refused: record<Of<RelayMessage, "refused">>({ type: typeOf("refused"), reason, retryMs: nullable(duration) }),
  banned: record<Of<RelayMessage, "banned">>({ type: typeOf("banned"), why: text(TEXT_CHARS_MAX, { charsMin: 1 }) }),
  meet: record<Of<RelayMessage, "meet">>({
    type: typeOf("meet"),
    meeting,
    blob: digest<Digest>(),
    peer: binary(PUBLIC_KEY_BYTES, PUBLIC_KEY_BYTES),
    asks: boolean,
  }),
  alone: record<Of<RelayMessage, "alone">>({ type: typeOf("alone"), blob: digest<Digest>() }),
  signal: signalReader,
  rtc: rtcReader,
  ping: pingReader,
  pong: pongReader,
});

const CONTRIBUTOR_TYPES = new Set<Message["type"]>([
  "hello",
  "prove",
  "ready",
  "contribute",
  "offer",
  "piece",
  "report",
  "release",
  "leave",
  "serve",
  "seek",
  "met",
]);
/** Messages that may be larger than CONTROL_BYTES_MAX. */
const LARGE_TYPES: readonly unknown[] = ["contribute", "piece"];

/** The bytes of a message. A message that is not valid is a bug of the caller and throws. */
export function encodeMessage(message: Message): Bytes {
  const what = `message "${message.type}"`;
  if (message.type === "contribute" || message.type === "piece") {
    const content = message.type === "contribute" ? message.payload : message.bytes;
    return encodeValue(contributorReader, message, what, content.length + HEADER_BYTES_MAX + 512);
  }
  return CONTRIBUTOR_TYPES.has(message.type)
    ? encodeValue(contributorReader, message as ContributorMessage, what)
    : encodeValue(relayReader, message as RelayMessage, what);
}

/** Reads what a contributor sent. The payload of a contribution and the bytes of a piece are views into `bytes`. */
export function decodeContributorMessage(bytes: Uint8Array): Checked<ContributorMessage> {
  return checked(() => {
    checkBytes(bytes.length, MESSAGE_BYTES_MAX);
    const value = decodeValue(bytes, CONTRIBUTOR_SCAN) as {
      readonly type?: unknown;
      readonly protocol?: unknown;
    } | null;
    if (!LARGE_TYPES.includes(value?.type)) {
      checkBytes(bytes.length, CONTROL_BYTES_MAX);
    }
    if (value?.type === "hello" && Number.isSafeInteger(value.protocol) && value.protocol !== PROTOCOL_VERSION) {
      // Said before its fields are read: another version may have others.
      throw new FieldError(
        `Cannot read hello: got protocol ${String(value.protocol)}, need ${PROTOCOL_VERSION}`,
        "wrong-version",
      );
    }
    return contributorReader(value, "message");
  });
}

/** Reads what a relay sent. */
export function decodeRelayMessage(bytes: Uint8Array): Checked<RelayMessage> {
  return checked(() => {
    checkBytes(bytes.length, CONTROL_BYTES_MAX);
    return relayReader(decodeValue(bytes, RELAY_SCAN), "message");
  });
}

function checkBytes(bytes: number, bytesMax: number): void {
  if (bytes > bytesMax) {
    throw new FieldError(`Cannot read message: got ${bytes} bytes, need at most ${bytesMax}`, "oversized");
  }
}

/** The canonical bytes that a contributor signs under the purpose "contribution". */
export function encodeHeader(header: ContributionHeader): Bytes {
  return encodeValue(headerReader, header, "contribution header", HEADER_BYTES_MAX);
}

export function decodeHeader(bytes: Uint8Array): Checked<ContributionHeader> {
  return checked(() => readCanonical(headerReader, bytes, "contribution header", SIGNED_SCAN));
}

/** The canonical bytes that a validator signs under the purpose "report". */
export function encodeReport(body: ReportBody): Bytes {
  return encodeValue(reportReader, body, "report", REPORT_BYTES_MAX);
}

export function decodeReport(bytes: Uint8Array): Checked<ReportBody> {
  return checked(() => readCanonical(reportReader, bytes, "report", SIGNED_SCAN));
}

/** A contribution's name: the SHA-256 of its header's canonical bytes. */
export function contributionIdOf(header: Uint8Array): ContributionId {
  return digestOf(header) as string as ContributionId;
}

/** A contributor's name: the SHA-256 of its public key. */
export function contributorIdOf(publicKey: Uint8Array): ContributorId {
  return digestOf(publicKey) as string as ContributorId;
}

/**
 * What both ends of a session sign, the relay in `challenge` under the purpose "relay", the contributor in `prove` under
 * "session": the relay's nonce, then the SHA-256 of the hello message as it was sent, which holds the contributor's nonce. So
 * neither a key nor what was said with it can be changed on the way, and no proof can be used again.
 */
export function sessionProof({ nonce, hello }: { readonly nonce: Uint8Array; readonly hello: Uint8Array }): Bytes {
  return concatBytes([nonce, fromHex(digestOf(hello))]);
}

/**
 * What is signed of WebRTC signalling under the purpose "rtc": the session's nonce, then the SHA-256 of the offer, and in an
 * answer that of the answer: of the descriptions as they are sent, in UTF-8, DTLS fingerprints included. Whoever changes one on the way
 * breaks its signature.
 */
export function rtcProof({
  nonce,
  offer,
  answer,
}: {
  readonly nonce: Uint8Array;
  readonly offer: string;
  readonly answer?: string;
}): Bytes {
  const signed = answer === undefined ? [offer] : [offer, answer];
  return concatBytes([nonce, ...signed.map((sdp) => fromHex(digestOf(textBytes(sdp))))]);
}
