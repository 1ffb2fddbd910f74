/**
 * The store of relays on a NATS JetStream server or cluster, for one process or several: three streams of which each is
 * written so that what was acknowledged outlives any one server of a cluster of three.
 *
 * `<name>-log` (`nats-log.ts`), `<name>-keys` (`nats-keys.ts`), and `<name>-pieces` (`pieces.ts`) for blobs and for entries and
 * values larger than a message.
 *
 * A put, append or set of more than a message that is cut off leaves pieces without a size, which nobody sees and `sweep` removes; where
 * it was cut off after the size, a blob is whole, a value's pieces are removed, and those of an append stay.
 */
import { isDigest } from "../base/bytes.ts";
import { hashBytes } from "./hash.ts";
import { JetStream, type StreamChoice } from "./jetstream.ts";
import type { NatsAddress } from "./nats-address.ts";
import { Bodies } from "./nats-body.ts";
import { NatsKeys } from "./nats-keys.ts";
import { APPEND_BYTES_MAX, NatsLog } from "./nats-log.ts";
import { Pieces } from "./pieces.ts";
import {
  BLOB_STORED_BYTES_MAX,
  checkBlob,
  checkDigest,
  checkPosition,
  damagedBlob,
  type Blobs,
  type Store,
} from "./store.ts";

export interface NatsOptions {
  readonly blobBytesMax?: number;
  /** How long a call waits for servers to come back before it fails, in milliseconds. */
  readonly patienceMs?: number;
  /** Told, in a sentence, what an operator should change. */
  readonly onWarning?: (sentence: string) => void;
  /** Nothing is made: a store that is not there is HeddleError "bad-input". */
  readonly existing?: boolean;
}

const PATIENCE_MS = 30_000;
const FORGETFUL =
  "This NATS cluster is older than 2.10: a server that was killed and comes back has lost keys and blobs, and the next one that ends may take the last copy. Update nats-server before you rely on it";

/**
 * Opens the store `address.name`, whose streams are made when absent. Throws HeddleError "store" when no server answers or it
 * has no JetStream for us. Afterwards servers may go and come: calls wait, and fail with HeddleError "store" after
 * `patienceMs`. What a call that failed so asked for may still have happened.
 */
export async function openNatsStore(
  address: NatsAddress,
  { blobBytesMax = BLOB_STORED_BYTES_MAX, patienceMs = PATIENCE_MS, onWarning, existing = false }: NatsOptions = {},
): Promise<Store> {
  const { name } = address;
  const jetStream = await JetStream.open(address, patienceMs);
  if (jetStream.forgets) {
    onWarning?.(FORGETFUL);
  }
  const stream = `${name}-pieces`;
  const pieces = (kind: string, bytesMax: number): Pieces =>
    new Pieces({ jetStream, stream, kind: `${name}.${kind}`, bytesMax });
  const [blobs, values] = [pieces("blob", blobBytesMax), pieces("value", APPEND_BYTES_MAX)];
  const bodies = new Bodies(jetStream, values);
  try {
    const prepare = (choice: StreamChoice): Promise<void> => jetStream.prepareStream(choice, existing);
    await Promise.all([
      prepare({
        name: `${name}-log`,
        subjects: [`${name}.log`],
        max_msgs_per_subject: -1,
        deny_delete: true,
        deny_purge: true,
      }),
      prepare({ name: `${name}-keys`, subjects: [`${name}.key.*`], max_msgs_per_subject: 1 }),
      prepare({ name: stream, subjects: [`${name}.blob.*.*`, `${name}.value.*.*`], max_msgs_per_subject: 1 }),
    ]);
  } catch (error) {
    await jetStream.gate.close();
    throw error;
  }
  const keys = new NatsKeys(name, jetStream, bodies);
  const action = "remove what was cut off";
  return {
    log: new NatsLog(name, jetStream, bodies),
    keys,
    blobs: natsBlobs(jetStream, blobs, blobBytesMax),
    sweep: (ageMs) =>
      jetStream.gate.run(action, async () => {
        const isNeeded = await keys.pieces(action);
        return (await blobs.sweep(action, ageMs, () => true)) + (await values.sweep(action, ageMs, isNeeded));
      }),
    close: () => jetStream.gate.close(),
  };
}

function natsBlobs({ gate }: JetStream, pieces: Pieces, blobBytesMax: number): Blobs {
  return {
    put: (bytes, known) =>
      gate.run("store a blob", async () => {
        checkBlob(bytes, blobBytesMax);
        const digest = known ?? (await hashBytes(bytes));
        await pieces.put("store a blob", digest, bytes);
        return digest;
      }),
    get: (digest) =>
      gate.run("read a blob", async () => {
        checkDigest(digest);
        // A replica may be behind with the repair of a blob; the leader is not.
        for (const from of ["any", "leader"] as const) {
          const bytes = await pieces.read("read a blob", digest, { from });
          if (bytes === undefined || (await hashBytes(bytes)) === digest) {
            return bytes;
          }
        }
        throw damagedBlob(digest);
      }),
    slice: (digest, start, end) =>
      gate.run("read a blob", async () => {
        checkDigest(digest);
        checkPosition(start, "read a slice");
        checkPosition(end, "read a slice");
        return pieces.read("read a blob", digest, { start, end });
      }),
    size: (digest) =>
      gate.run("read a blob", async () => {
        checkDigest(digest);
        return pieces.size("read a blob", digest);
      }),
    delete: (digest) =>
      gate.run("delete a blob", async () => {
        checkDigest(digest);
        return pieces.delete("delete a blob", digest);
      }),
    list: () => gate.run("list blobs", async () => (await pieces.list("list blobs")).filter(isDigest)),
  };
}
