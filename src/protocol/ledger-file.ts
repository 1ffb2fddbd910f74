/**
 * The ledger outside its store: as a file that anybody can check (`npm run admin -- ledger export`), and as a page of it over
 * HTTP. It is a line that names the format, then each entry as it was written, with its length in front (four bytes, the
 * highest first).
 */
import { HeddleError } from "../base/assert.ts";
import { concatBytes, equalBytes, type Bytes } from "../base/bytes.ts";
import { ENTRY_BYTES_MAX } from "./limits.ts";

/** Its first line. */
const FORMAT = Uint8Array.from("heddle ledger 1\n", (letter) => letter.charCodeAt(0));
const LENGTH_BYTES = 4;
/** Entries written at a time, unless told otherwise. */
const PAGE_ENTRIES = 256;

/** `entries` as a file's pieces, of `pieceEntries` each. */
export async function* writeLedger(
  entries: AsyncIterable<Bytes> | Iterable<Bytes>,
  pieceEntries = PAGE_ENTRIES,
): AsyncGenerator<Bytes> {
  yield FORMAT;
  let page: Uint8Array[] = [];
  for await (const entry of entries) {
    const length = new Uint8Array(LENGTH_BYTES);
    new DataView(length.buffer).setUint32(0, entry.length);
    page.push(length, entry);
    if (page.length >= 2 * pieceEntries) {
      yield concatBytes(page);
      page = [];
    }
  }
  yield concatBytes(page);
}

/** The entries of a file, from its pieces. Throws HeddleError "bad-input" for what is no ledger file, or not a whole one. */
export async function* readLedger(pieces: AsyncIterable<Uint8Array>): AsyncGenerator<Bytes> {
  let rest: Bytes = new Uint8Array();
  let begun = false;
  let entries = 0;
  for await (const piece of pieces) {
    rest = concatBytes([rest, piece]);
    let at = 0;
    if (!begun) {
      if (rest.length < FORMAT.length) {
        continue;
      }
      if (!equalBytes(rest.subarray(0, FORMAT.length), FORMAT)) {
        break;
      }
      begun = true;
      at = FORMAT.length;
    }
    while (rest.length - at >= LENGTH_BYTES) {
      const length = new DataView(rest.buffer, rest.byteOffset + at).getUint32(0);
      if (length < 1 || length > ENTRY_BYTES_MAX) {
        const got = `entry ${entries} is said to have ${length} bytes, need 1 to ${ENTRY_BYTES_MAX}`;
        throw new HeddleError("bad-input", `Cannot read the ledger file: ${got}`);
      }
      if (rest.length - at - LENGTH_BYTES < length) {
        break;
      }
      yield rest.slice(at + LENGTH_BYTES, at + LENGTH_BYTES + length);
      at += LENGTH_BYTES + length;
      entries += 1;
    }
    rest = rest.slice(at);
  }
  if (!begun) {
    throw new HeddleError("bad-input", 'Cannot read the ledger file: it does not begin with "heddle ledger 1"');
  }
  if (rest.length > 0) {
    throw new HeddleError("bad-input", `Cannot read the ledger file: it ends in the middle of entry ${entries}`);
  }
}
