/**
 * The outer optimiser on the relay: momentum (optional), learning rate, and one recompressed update for everybody, with
 * error feedback of its own for what the recompression leaves out. It is a pure function of the state and the merged
 * delta; anyone who has both gets the same broadcast, bit for bit.
 *
 *     momentum ← μ·momentum + merged            (DiLoCo's Nesterov form, PyTorch's SGD with nesterov=True)
 *     residual ← β·residual + lr·(merged + μ·momentum)
 *     broadcast = pack(residual);  residual ← residual − unpack(broadcast);  base ← base − unpack(broadcast)
 */
import { assert } from "../base/assert.ts";
import type { Bytes } from "../base/bytes.ts";
import { rateShare } from "../protocol/decay.ts";
import type { Charter, Compression, OuterConfig } from "../protocol/charter.ts";
import { accept, type Checked, refuse } from "../protocol/verdict.ts";
import { settle } from "./feedback.ts";
import { packUpdate } from "./pack.ts";
import { type SparseUpdate, unpackUpdate } from "./unpack.ts";

/** What the relay carries from round to round besides the base. Never changed in place. */
export interface ServerState {
  /** [P] f64: what earlier broadcasts left out. */
  readonly residual: Float64Array<ArrayBuffer>;
  /** [P] f64, null until momentum is used. */
  readonly momentum: Float64Array<ArrayBuffer> | null;
}

export interface OuterResult {
  readonly server: ServerState;
  /** The packed update of the base. */
  readonly broadcast: Bytes;
  /** The same, unpacked: what every replica applies. */
  readonly update: SparseUpdate;
}

export function createServerState(parameters: number): ServerState {
  return { residual: new Float64Array(parameters), momentum: null };
}

/** The outer settings that lead to `version`, counted from 1: its learning rate is on its way to the charter's `endShare`. */
export function outerAt({ outer, round }: Pick<Charter, "outer" | "round">, version: number): OuterConfig {
  const share = rateShare({ decayRounds: round.decayRounds, decayTo: outer.endShare }, version);
  return { ...outer, learningRate: outer.learningRate * share };
}

/** One outer step from `merged` [P]. With lr 1, μ 0, keep 4,096 and 64 bits the update is `merged` itself. */
export function outerStep(
  server: ServerState,
  merged: Float64Array,
  outer: OuterConfig,
  downlink: Compression,
): OuterResult {
  const parameters = server.residual.length;
  assert(
    merged.length === parameters,
    `Cannot take outer step: got ${merged.length} merged parameters, need ${parameters}`,
  );
  const momentum = outer.momentum === 0 ? server.momentum : nextMomentum(server, merged, outer.momentum);
  const residual = new Float64Array(parameters);
  for (let i = 0; i < parameters; i += 1) {
    const delta = merged[i] as number;
    const ahead = outer.momentum === 0 ? delta : delta + outer.momentum * (momentum?.[i] ?? 0);
    residual[i] = downlink.beta * (server.residual[i] as number) + outer.learningRate * ahead;
  }
  const broadcast = packUpdate(residual, downlink);
  const update = unpackUpdate(broadcast, { parameters, keepMax: downlink.keep, bits: downlink.bits });
  assert(update.ok, `Cannot take outer step: the broadcast does not unpack (${update.ok ? "" : update.detail})`);
  settle(residual, update.value);
  return { server: { residual, momentum }, broadcast, update: update.value };
}

function nextMomentum(server: ServerState, merged: Float64Array, mu: number): Float64Array<ArrayBuffer> {
  const momentum = new Float64Array(merged.length);
  for (let i = 0; i < merged.length; i += 1) {
    momentum[i] = mu * (server.momentum?.[i] ?? 0) + (merged[i] as number);
  }
  return momentum;
}

const SERVER_MAGIC = 0x536c6448; // "HdlS", read little-endian
const SERVER_HEADER_BYTES = 16;

/** The state as a blob: magic, version 1, P, whether there is momentum (u32 each), then residual and momentum as f64. */
export function serverBytes(server: ServerState): Bytes {
  const parameters = server.residual.length;
  const vectors = server.momentum === null ? 1 : 2;
  const bytes = new Uint8Array(SERVER_HEADER_BYTES + vectors * parameters * 8);
  new Uint32Array(bytes.buffer, 0, 4).set([SERVER_MAGIC, 1, parameters, vectors - 1]);
  const body = new Float64Array(bytes.buffer, SERVER_HEADER_BYTES);
  body.set(server.residual);
  if (server.momentum !== null) {
    body.set(server.momentum, parameters);
  }
  return bytes;
}

/** The state in a blob for P parameters: refused as "malformed", "truncated" or "not-finite" when it is not one. */
export function serverFromBytes(bytes: Uint8Array, parameters: number): Checked<ServerState> {
  if (bytes.length < SERVER_HEADER_BYTES) {
    return refuse("truncated", `Cannot read server state: got ${bytes.length} bytes, need ${SERVER_HEADER_BYTES}`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, SERVER_HEADER_BYTES);
  const extra = view.getUint32(12, true);
  if (view.getUint32(0, true) !== SERVER_MAGIC || view.getUint32(4, true) !== 1 || extra > 1) {
    return refuse("malformed", "Cannot read server state: it does not begin like one of this version");
  }
  if (view.getUint32(8, true) !== parameters) {
    return refuse(
      "malformed",
      `Cannot read server state: it has ${view.getUint32(8, true)} parameters, need ${parameters}`,
    );
  }
  const need = SERVER_HEADER_BYTES + (1 + extra) * parameters * 8;
  if (bytes.length !== need) {
    const reason = bytes.length < need ? "truncated" : "malformed";
    return refuse(reason, `Cannot read server state: got ${bytes.length} bytes, need ${need}`);
  }
  const vectors = new Float64Array((1 + extra) * parameters);
  new Uint8Array(vectors.buffer).set(bytes.subarray(SERVER_HEADER_BYTES));
  for (const value of vectors) {
    if (!Number.isFinite(value)) {
      return refuse("not-finite", "Cannot read server state: a value is not a finite number");
    }
  }
  const momentum = extra === 1 ? vectors.slice(parameters) : null;
  return accept({ residual: extra === 1 ? vectors.slice(0, parameters) : vectors, momentum });
}
