/**
 * The shared base as the relay holds it: the head's parameters and the outer optimiser's state in memory, all versions'
 * bytes in the store. Merging is a function of these and of the accepted payloads, in an order fixed by their ids, so a
 * merge that a crash interrupted is done again with the same bits.
 */
import { assert, HeddleError, present } from "../base/assert.ts";
import { bytesToFloats, floatBytes, type Bytes, type ContributionId, type Digest } from "../base/bytes.ts";
import { packedBytesMax, serverBytesOf } from "../protocol/capacity.ts";
import { keepMaxOf, type Charter } from "../protocol/charter.ts";
import type { Losses, VersionInfo } from "../protocol/messages.ts";
import { refuse, type Checked } from "../protocol/verdict.ts";
import type { Blobs } from "../store/store.ts";
import type { MeasureFacts } from "../trust/measure.ts";
import type { Base, Crew, Memory } from "../update/crew.ts";
import type { PackedContribution } from "../update/merge.ts";
import { createServerState, outerAt, serverFromBytes } from "../update/outer.ts";
import { stepOver, type Step } from "../update/step.ts";
import { unpackUpdate, type SparseUpdate } from "../update/unpack.ts";
import { weightIn } from "./late.ts";
import { updateFacts, type Contribution, type DurableState } from "./state.ts";

/** Who measures for the relay. Both run to their end; they reject only when the referee itself fails. */
export interface Referee {
  /** Mean loss of parameters [P] on the charter's evaluation data, nats per byte. */
  evaluate(params: Float32Array): Promise<number>;
  /** What `update` does to the losses of `base` [P]. */
  measure(base: Float32Array, update: SparseUpdate, facts: MeasureFacts): Promise<Losses>;
}

/** The next version, computed and stored, but not yet in the ledger. */
export interface NextBase {
  readonly base: Base;
  readonly head: VersionInfo;
  readonly server: Digest;
}

/** Stores the parameters [P] that a run begins with and describes them as version 0. */
export async function storeFirst(
  blobs: Blobs,
  referee: Referee,
  initial: Float32Array<ArrayBuffer>,
): Promise<VersionInfo> {
  const digest = await blobs.put(floatBytes(initial));
  const evalLoss = await referee.evaluate(initial.slice());
  return { version: 0, digest, parent: null, update: null, checkpointBytes: initial.byteLength, evalLoss };
}

/**
 * Reads the head's blobs into `memory`. Rejects with HeddleError "integrity" when one is missing or damaged, "limit" when there
 * is no room.
 */
export async function loadBase(
  blobs: Blobs,
  { head, servers }: Pick<DurableState, "head" | "servers">,
  memory: Memory,
): Promise<Base> {
  const stored = bytesToFloats(await readBlob(blobs, head.digest, "checkpoint"));
  const parameters = stored.length;
  const params = new Float32Array(memory.take(stored.byteLength));
  params.set(stored);
  const server = servers.at(-1);
  if (server === undefined) {
    const state = createServerState(parameters, 1, memory.take(serverBytesOf(parameters, 1)));
    state.residual.fill(0);
    return { params, server: state };
  }
  const bytes = await readBlob(blobs, server, "outer state");
  const state = serverFromBytes(bytes, parameters, (size) => memory.take(size));
  if (!state.ok) {
    throw new HeddleError("integrity", `Cannot load the shared base: ${state.detail}`);
  }
  return { params, server: state.value };
}

/** Bytes of the largest packed update of P parameters that anybody may send. */
export function payloadBytesMax(parameters: number, charter: Charter): number {
  return packedBytesMax(parameters, { keep: keepMaxOf(charter), bits: charter.uplink.bits });
}

/** Unpacks a contribution's payload under the charter's limits. */
export function unpackPayload(payload: Uint8Array, parameters: number, charter: Charter): Checked<SparseUpdate> {
  const bytesMax = payloadBytesMax(parameters, charter);
  if (payload.length > bytesMax) {
    return refuse("oversized", `Cannot unpack update: got ${payload.length} bytes, need at most ${bytesMax}`);
  }
  return unpackUpdate(payload, { parameters, keepMax: keepMaxOf(charter), bits: charter.uplink.bits });
}

/** The update of a contribution that was received: its payload is in the store and has been unpacked before. */
export async function readUpdate(
  blobs: Blobs,
  { header }: Contribution,
  parameters: number,
  charter: Charter,
): Promise<SparseUpdate> {
  const unpacked = unpackPayload(await readBlob(blobs, header.payload.digest, "payload"), parameters, charter);
  assert(unpacked.ok, `Cannot read a stored update: ${unpacked.ok ? "" : unpacked.detail}`);
  return unpacked.value;
}

export interface StepOptions {
  readonly crew: Crew;
  readonly charter: Charter;
  /** That is merged. */
  readonly round: number;
  /** That the step leads to. */
  readonly version: number;
  /** The accepted contributions, and how to read a payload. */
  readonly contributions: readonly Pick<Contribution, "id" | "header" | "norm">[];
  readonly read: (payload: Digest) => Promise<Bytes>;
}

/** Merges contributions into `base`. A function of its arguments to the last bit, for relays and for those who look again. */
export function takeStep(
  before: Base,
  { crew, charter, round, version, contributions, read }: StepOptions,
): Promise<Step> {
  const packed = contributions.map(({ id, header, norm }): PackedContribution => {
    const { payload } = header;
    const weight = weightIn(round, header, charter);
    const facts = updateFacts({ norm, header });
    return { id, weight, ...facts, bytes: payload.bytes, read: () => read(payload.digest) };
  });
  return stepOver(crew, before, packed, { outer: outerAt(charter, version), downlink: charter.downlink });
}

export interface MergeOptions {
  readonly blobs: Blobs;
  readonly referee: Referee;
  readonly crew: Crew;
  readonly charter: Charter;
  readonly durable: DurableState;
  readonly base: Base;
  readonly contributions: readonly ContributionId[];
}

/** Merges the accepted contributions into the next version and stores what it consists of. */
export async function mergeRound({
  blobs,
  referee,
  crew,
  durable,
  base: before,
  contributions: ids,
  ...options
}: MergeOptions): Promise<NextBase> {
  const contributions = ids.map((id) => present(durable.contributions.get(id), `contribution ${id} of this round`));
  const version = durable.head.version + 1;
  const { round } = durable;
  const read = (payload: Digest): Promise<Bytes> => readBlob(blobs, payload, "payload");
  const { base, broadcast } = await takeStep(before, { ...options, crew, round, version, contributions, read });
  const put = async (whole: Uint8Array): Promise<Digest> => {
    const { bytes, digest } = await crew.seal(whole);
    return blobs.put(bytes, digest);
  };
  const server = await put(base.server.bytes);
  const head: VersionInfo = {
    version,
    digest: await put(floatBytes(base.params)),
    parent: durable.head.digest,
    update: { digest: await blobs.put(broadcast), bytes: broadcast.length },
    checkpointBytes: base.params.byteLength,
    evalLoss: await referee.evaluate(base.params),
  };
  return { base, head, server };
}

async function readBlob(blobs: Blobs, digest: Digest, what: string): Promise<Bytes> {
  const bytes = await blobs.get(digest); // verified against the digest
  if (bytes === undefined) {
    throw new HeddleError("integrity", `Cannot load the shared base: the ${what} ${digest} is missing`);
  }
  return bytes;
}
