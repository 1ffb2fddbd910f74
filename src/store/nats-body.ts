/** What JetStream messages carry: in themselves, or in pieces that they name when it is too much for one message. */
import { nuid } from "@nats-io/transport-node";
import type { Bytes } from "../base/bytes.ts";
import type { JetStream, Message, Stored } from "./jetstream.ts";
import type { Pieces } from "./pieces.ts";

/** What one message carries at most, even where the server would take more. */
const INLINE_BYTES_MAX = 1_000_000;

/** Names the pieces that hold what did not fit the message. */
export const PIECES_HEADER = "Heddle-Pieces";

export class Bodies {
  readonly #inlineBytesMax: number;
  readonly #pieces: Pieces;

  constructor(jetStream: JetStream, pieces: Pieces) {
    this.#inlineBytesMax = Math.min(INLINE_BYTES_MAX, jetStream.payloadBytesMax);
    this.#pieces = pieces;
  }

  /** `owner` begins the name of the pieces, if there are any. */
  async write(action: string, subject: string, bytes: Bytes, owner = ""): Promise<Required<Message>> {
    if (bytes.length <= this.#inlineBytesMax) {
      return { subject, payload: bytes, headers: {} };
    }
    const id = owner + nuid.next();
    await this.#pieces.put(action, id, bytes);
    return { subject, payload: new Uint8Array(), headers: { [PIECES_HEADER]: id } };
  }

  /** Undefined when the pieces are gone, as those of a replaced value are. */
  async read(action: string, { header, payload }: Stored): Promise<Bytes | undefined> {
    const id = header(PIECES_HEADER);
    return id === "" ? payload.slice() : this.#pieces.read(action, id);
  }

  /** Removes the pieces of a message that was replaced or never stored. */
  async drop(action: string, id: string | undefined): Promise<void> {
    if (id !== undefined && id !== "") {
      await this.#pieces.delete(action, id);
    }
  }
}
