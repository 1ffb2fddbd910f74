/**
 * Every message that crosses a link, once. Messages are msgpack maps tagged by `type`; tensors and packed updates travel as
 * `bin`. `codec.ts` encodes and checks them; `docs/protocol.md` describes them for a second implementation.
 *
 * A session: hello → challenge → prove → welcome, then ready → assign → contribute or report → verdict, and version
 * whenever the shared base moves on. What is large and public (checkpoints, updates, shards, others' contributions) is not
 * sent in messages but fetched by digest over HTTP; a checkpoint also from another contributor (`peer.ts`), where both agreed:
 * serve, seek → meet → signal → met.
 */
import type { Bytes, ContributionId, ContributorId, Digest } from "../base/bytes.ts";
import type { IceServer } from "./ice.ts";
import type { Charter } from "./charter.ts";
import type { Reason, Verdict } from "./verdict.ts";

/** A version of the shared base. */
export interface VersionInfo {
  readonly version: number;
  /** SHA-256 of the parameters' little-endian f32 bytes. */
  readonly digest: Digest;
  /** Digest of the version it was made from, null for version 0. */
  readonly parent: Digest | null;
  /** Packed update that turns the parent into this version: base ← base − update. Null for version 0. */
  readonly update: { readonly digest: Digest; readonly bytes: number } | null;
  readonly checkpointBytes: number;
  /** Mean loss on the charter's evaluation data, nats per byte. */
  readonly evalLoss: number;
}

export interface TrainAssignment {
  readonly type: "train";
  readonly id: string;
  readonly round: number;
  readonly baseVersion: number;
  readonly baseDigest: Digest;
  /** Seeds this assignment's batches, together with the round and the contributor. */
  readonly seed: number;
  readonly stepsMax: number;
  /** Entries to keep of each chunk. */
  readonly keep: number;
  /** Time to train, counted from receipt. */
  readonly trainMs: number;
}

export interface ValidateAssignment {
  readonly type: "validate";
  readonly id: string;
  readonly round: number;
  readonly baseVersion: number;
  readonly baseDigest: Digest;
  readonly contribution: ContributionId;
  /** Whose work it is, and the seed its batches came from: what is needed to derive its assigned data. */
  readonly author: ContributorId;
  readonly authorSeed: number;
  /** Inner steps that the author reports; its assigned data are the batches of these steps. */
  readonly authorSteps: number;
  /** The author trained on data that never leaves it: only random data can be measured. */
  readonly privateData: boolean;
  /** What the update improves is measured as one of so many in a mean: divided by it. */
  readonly among: number;
  readonly payload: { readonly digest: Digest; readonly bytes: number };
  /** Seeds the random data; drawn after the contribution was committed. */
  readonly seed: number;
  readonly judgeMs: number;
}

export type Assignment = TrainAssignment | ValidateAssignment;

/** What a contributor signs: who made what from which base, and the digest of the packed update. */
export interface ContributionHeader {
  /** Digest of the charter. */
  readonly run: Digest;
  readonly contributor: ContributorId;
  readonly assignment: string;
  readonly round: number;
  readonly baseVersion: number;
  readonly baseDigest: Digest;
  /** Inner steps on the assignment's batches. */
  readonly steps: number;
  /** Steps before these, on the batches after those of the last assignment, taken while its update travelled. */
  readonly ahead: number;
  /** Tokens trained on in both. */
  readonly tokens: number;
  /** Mean training loss over the steps, nats per token; 0 where the texts are private. */
  readonly loss: number;
  readonly privateData: boolean;
  readonly payload: { readonly digest: Digest; readonly bytes: number };
}

/**
 * Mean losses, nats per token: on assigned data without a contribution and with it as one of `among` (null for private data), on random
 * data without and with all of it.
 */
export interface Losses {
  readonly assignedBefore: number | null;
  readonly assignedAfter: number | null;
  readonly randomBefore: number;
  readonly randomAfter: number;
}

/** What a validator signs. */
export interface ReportBody extends Losses {
  readonly run: Digest;
  readonly validator: ContributorId;
  readonly assignment: string;
  readonly contribution: ContributionId;
}

export type ContributorMessage =
  | {
      readonly type: "hello";
      readonly protocol: number;
      readonly publicKey: Bytes; // 32 bytes, Ed25519
      /** 32 bytes, never the same twice: what the relay signs for this session serves in no other. */
      readonly nonce: Bytes;
      readonly agent: string;
      readonly engine: "webgpu" | "wasm" | "twin";
      readonly device: string;
      readonly privateData: boolean;
    }
  | { readonly type: "prove"; readonly signature: Bytes }
  /** Holds this version of the base and wants work. */
  | { readonly type: "ready"; readonly version: number }
  /**
   * A contribution whose payload fits one piece. `header` is the canonical msgpack of ContributionHeader; the contribution's
   * id is its SHA-256.
   */
  | { readonly type: "contribute"; readonly header: Bytes; readonly signature: Bytes; readonly payload: Bytes }
  /** A contribution whose payload follows in pieces; `pieces` are their SHA-256, 32 bytes each (`pieces.ts`). */
  | { readonly type: "offer"; readonly header: Bytes; readonly signature: Bytes; readonly pieces: Bytes }
  /** Piece number `index`, from 0, of what was offered. */
  | { readonly type: "piece"; readonly contribution: ContributionId; readonly index: number; readonly bytes: Bytes }
  /** `body` is the canonical msgpack of ReportBody. */
  | { readonly type: "report"; readonly body: Bytes; readonly signature: Bytes }
  /** Gives an assignment back, for example because the person paused. */
  | { readonly type: "release"; readonly assignment: string }
  | { readonly type: "leave" }
  /** Agreed to serve this checkpoint to other contributors, and can now; null: none any more. In place of what was said before. */
  | { readonly type: "serve"; readonly blob: Digest | null }
  /** Asks for somebody who serves this checkpoint. */
  | { readonly type: "seek"; readonly blob: Digest }
  /** What came of a meeting. Whoever was asked can only decline; whoever asked says how it ended, and how many bytes came. */
  | {
      readonly type: "met";
      readonly meeting: Bytes;
      readonly outcome: "fetched" | "failed" | "wrong" | "declined";
      readonly bytes: number;
    }
  | PeerSignal
  | RtcSignal
  | Heartbeat;

export type RelayMessage =
  /** `relay` is the key that signs the ledger; `signature` proves that it is here. */
  | { readonly type: "challenge"; readonly nonce: Bytes; readonly relay: Bytes; readonly signature: Bytes }
  | {
      readonly type: "welcome";
      readonly run: Digest;
      readonly charter: Charter;
      readonly contributor: ContributorId;
      readonly head: VersionInfo;
      /** Versions before the head whose updates can be fetched, oldest first: whoever holds one goes on from it. */
      readonly earlier: readonly VersionInfo[];
    }
  /** Servers for the contributor's WebRTC links, in place of those named before. */
  | { readonly type: "ice"; readonly servers: readonly IceServer[] }
  | { readonly type: "assign"; readonly assignment: Assignment }
  /**
   * So many pieces of a contribution, from the first on, are durable here; those after them are wanted. Said again with the
   * same number: what arrived next was damaged. A whole contribution is one piece.
   */
  | { readonly type: "have"; readonly contribution: ContributionId; readonly pieces: number }
  | { readonly type: "verdict"; readonly contribution: ContributionId; readonly verdict: Verdict }
  | { readonly type: "version"; readonly head: VersionInfo }
  /** Refuses the last message, or the session (then the link closes). */
  | { readonly type: "refused"; readonly reason: Reason; readonly retryMs: number | null }
  /** The operator has excluded this device, for the reason `why`; then the link closes. */
  | { readonly type: "banned"; readonly why: string }
  /**
   * Introduces two contributors, of whom one `asks` for a checkpoint that the other serves. `meeting`: 32 bytes, never the same
   * twice; `peer`: the other's public key.
   */
  | {
      readonly type: "meet";
      readonly meeting: Bytes;
      readonly blob: Digest;
      readonly peer: Bytes;
      readonly asks: boolean;
    }
  /** Nobody is there to serve this checkpoint, or whoever was declines or has left. */
  | { readonly type: "alone"; readonly blob: Digest }
  | PeerSignal
  | RtcSignal
  | Heartbeat;

/** One step of WebRTC signalling, carried by the WebSocket and signed by its maker: the contributor or the relay. */
export interface RtcSignal {
  readonly type: "rtc";
  readonly kind: "offer" | "answer";
  readonly sdp: string;
  readonly signature: Bytes;
}

/** The same between two contributors: the relay carries it, and neither makes nor changes it (`peer.ts` says what is signed). */
export interface PeerSignal {
  readonly type: "signal";
  readonly meeting: Bytes;
  readonly kind: "offer" | "answer";
  readonly sdp: string;
  readonly signature: Bytes;
}

export type Heartbeat = { readonly type: "ping" } | { readonly type: "pong" };

export type Message = ContributorMessage | RelayMessage;
