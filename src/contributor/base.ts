/**
 * How a device gets a version of the shared base: by the updates since the one that it holds, where these are known and smaller, from its
 * checkpoint otherwise. A relay that cannot be asked now is asked again: what it sheds load for, or is not there for, does not become
 * a download many times as large.
 */
import { HeddleError, type ErrorCode } from "../base/assert.ts";
import { bytesToFloats, digestOf, floatBytes, type Digest } from "../base/bytes.ts";
import type { FetchBlob } from "../net/link.ts";
import type { Charter } from "../protocol/charter.ts";
import type { VersionInfo } from "../protocol/messages.ts";
import { applyUpdate } from "../update/delta.ts";
import { unpackUpdate } from "../update/unpack.ts";
import type { Held } from "./notebook.ts";

interface FetchBaseOptions {
  readonly held: Held | undefined;
  readonly earlier: readonly VersionInfo[];
  readonly charter: Charter;
  readonly fetchBlob: FetchBlob;
  readonly fetchCheckpoint: FetchBlob;
}

/** Why an update is not to be had at another try either: it is not there, or is something else. */
const LOST: readonly ErrorCode[] = ["absent", "integrity", "limit"];

/** The parameters [P] of `head`. Rejects with HeddleError "integrity" when what came is something else, and as the fetch does. */
export async function fetchBase(head: VersionInfo, options: FetchBaseOptions): Promise<Float32Array<ArrayBuffer>> {
  const { held, earlier, charter, fetchBlob, fetchCheckpoint } = options;
  if (head.digest === held?.digest) {
    return held.params;
  }
  const updates = held === undefined ? null : updatesSince(held.digest, [...earlier, head]);
  if (held !== undefined && updates !== null) {
    const next = await followUpdates(updates, held.params, { charter, fetchBlob });
    if (next !== null && digestOf(floatBytes(next)) === head.digest) {
      return next;
    }
  }
  const params = bytesToFloats(await fetchCheckpoint(head.digest, head.checkpointBytes));
  const digest = digestOf(floatBytes(params));
  if (digest !== head.digest) {
    throw new HeddleError("integrity", `Cannot use the checkpoint: its digest is ${digest}, need ${head.digest}`);
  }
  return params;
}

/** `params` [P] after all updates; null where one is lost or cannot be read: the checkpoint is left. Rejects where another try may bring it. */
async function followUpdates(
  updates: readonly Update[],
  params: Float32Array<ArrayBuffer>,
  { charter, fetchBlob }: Pick<FetchBaseOptions, "charter" | "fetchBlob">,
): Promise<Float32Array<ArrayBuffer> | null> {
  const limits = { parameters: params.length, keepMax: charter.downlink.keep };
  let next = params;
  for (const { digest, bytes } of updates) {
    const packed = await fetchBlob(digest, bytes).catch(nullIfLost);
    const update = packed === null ? null : unpackUpdate(packed, limits);
    if (update?.ok !== true) {
      return null;
    }
    next = applyUpdate(next, update.value);
  }
  return next;
}

function nullIfLost(error: unknown): null {
  if (error instanceof HeddleError && LOST.includes(error.code)) {
    return null;
  }
  throw error;
}

type Update = NonNullable<VersionInfo["update"]>;

/** The updates that lead from version `digest` to the last of `versions`; null where they do not, or a checkpoint is smaller. */
function updatesSince(digest: Digest, versions: readonly VersionInfo[]): Update[] | null {
  const updates: Update[] = [];
  let [wanted, bytes] = [versions.at(-1)?.digest, 0];
  for (const version of versions.toReversed()) {
    if (version.digest !== wanted || version.update === null || version.parent === null) {
      return null;
    }
    updates.unshift(version.update);
    bytes += version.update.bytes;
    wanted = version.parent;
    if (wanted === digest) {
      return bytes < version.checkpointBytes ? updates : null;
    }
  }
  return null;
}
