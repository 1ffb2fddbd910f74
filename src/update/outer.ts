/**
 * The outer optimiser on the relay: momentum (optional), learning rate, and error feedback of its own for what the recompression
 * of the broadcast leaves out; `twin.ts` has the formulas. The state is held as the blob that is stored: magic, version 1, P, whether there is
 * momentum (u32 each), then residual and momentum as f64.
 */
import { assert } from "../base/assert.ts";
import { SERVER_HEADER_BYTES, serverBytesOf } from "../protocol/capacity.ts";
import { rateShare } from "../protocol/decay.ts";
import type { Charter, OuterConfig } from "../protocol/charter.ts";
import { accept, type Checked, refuse } from "../protocol/verdict.ts";

/** What the relay carries from round to round besides the base. Never changed while it is the head's. */
export interface ServerState {
  /** The blob, of which the others are parts. */
  readonly bytes: Uint8Array;
  /** [P] f64: what earlier broadcasts left out. */
  readonly residual: Float64Array;
  /** [P] f64, null until momentum is used. */
  readonly momentum: Float64Array | null;
}

const SERVER_MAGIC = 0x536c6448; // "HdlS", read little-endian

/** A state of one vector, the residual, or of two; zeros, or what `buffer` contains. */
export function createServerState(
  parameters: number,
  vectors: 1 | 2 = 1,
  buffer: ArrayBufferLike = new ArrayBuffer(serverBytesOf(parameters, vectors)),
): ServerState {
  new Uint32Array(buffer, 0, 4).set([SERVER_MAGIC, 1, parameters, vectors - 1]);
  return {
    bytes: new Uint8Array(buffer),
    residual: new Float64Array(buffer, SERVER_HEADER_BYTES, parameters),
    momentum: vectors === 1 ? null : new Float64Array(buffer, SERVER_HEADER_BYTES + parameters * 8, parameters),
  };
}

/** The outer settings that lead to one version. */
export interface OuterSettings extends Pick<OuterConfig, "learningRate" | "momentum" | "clipToMedian" | "normPower"> {
  /** How far the merged delta is stretched on the way from its own norm to the contributors', 0 to 1. */
  readonly stretch: number;
}

/** How many vectors the state after `server` has. */
export function vectorsAfter({ momentum }: ServerState, outer: OuterSettings): 1 | 2 {
  return momentum !== null || outer.momentum !== 0 ? 2 : 1;
}

/** Leads to `version`, counted from 1: the learning rate is on its way to the charter's `endShare`, the stretch on its way to none. */
export function outerAt({ outer, round }: Pick<Charter, "outer" | "round">, version: number): OuterSettings {
  const { momentum, clipToMedian, normPower, radial, radialRounds } = outer;
  const share = rateShare({ decayRounds: round.decayRounds, decayTo: outer.endShare }, version);
  const stretch = radial ? rateShare({ decayRounds: radialRounds, decayTo: 0 }, version) : 0;
  return { learningRate: outer.learningRate * share, momentum, clipToMedian, normPower, stretch };
}

type Vectors = Pick<ServerState, "residual" | "momentum">;

/** One outer step of some parameters from their `merged` deltas, which count `factor` times: writes `next`, all of it. */
export function advanceOuter(
  before: Vectors,
  next: Vectors,
  merged: Float64Array,
  { outer, beta, factor }: { readonly outer: OuterSettings; readonly beta: number; readonly factor: number },
): void {
  const { length } = merged;
  const mu = outer.momentum;
  assert(
    before.residual.length === length && next.residual.length === length,
    `Cannot take outer step: got ${length} merged parameters, need ${before.residual.length}`,
  );
  if (mu !== 0) {
    const momentum = next.momentum;
    assert(momentum !== null, "Cannot take outer step: the next state has no room for momentum");
    for (let i = 0; i < length; i += 1) {
      const delta = (merged[i] as number) * factor;
      const speed = mu * (before.momentum?.[i] ?? 0) + delta;
      momentum[i] = speed;
      next.residual[i] = beta * (before.residual[i] as number) + outer.learningRate * (delta + mu * speed);
    }
    return;
  }
  if (before.momentum !== null) {
    next.momentum?.set(before.momentum);
  }
  for (let i = 0; i < length; i += 1) {
    next.residual[i] = beta * (before.residual[i] as number) + outer.learningRate * ((merged[i] as number) * factor);
  }
}

/**
 * The state in a blob for P parameters, copied into what `take` gives: refused as "malformed", "truncated" or "not-finite" when it
 * is not one.
 */
export function serverFromBytes(
  bytes: Uint8Array,
  parameters: number,
  take = (size: number): ArrayBufferLike => new ArrayBuffer(size),
): Checked<ServerState> {
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
  const vectors = extra === 1 ? 2 : 1;
  const need = serverBytesOf(parameters, vectors);
  if (bytes.length !== need) {
    const reason = bytes.length < need ? "truncated" : "malformed";
    return refuse(reason, `Cannot read server state: got ${bytes.length} bytes, need ${need}`);
  }
  const server = createServerState(parameters, vectors, take(need));
  server.bytes.set(bytes);
  for (const vector of [server.residual, server.momentum ?? []]) {
    for (const value of vector) {
      if (!Number.isFinite(value)) {
        return refuse("not-finite", "Cannot read server state: a value is not a finite number");
      }
    }
  }
  return accept(server);
}
