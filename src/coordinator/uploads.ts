/**
 * Contributions that arrive in pieces, as far as they are here. An upload is an offer and the pieces from the first on, each a key
 * of the store, so that one goes on where it was after a broken link, and after a relay that was killed. A device has one at a
 * time; number and bytes of all together are bounded, and so is the time that one may rest. Keys, not blobs: a blob is known
 * by its content, and who deletes an upload must not delete what somebody else has stored.
 */
import { concatBytes, type Bytes, type ContributionId, type ContributorId, type Digest } from "../base/bytes.ts";
import { contributionIdOf, decodeContributorMessage, decodeHeader, encodeMessage } from "../protocol/codec.ts";
import type { ContributionHeader, ContributorMessage } from "../protocol/messages.ts";
import { pieceAt, pieceDigest, piecesOffered } from "../protocol/pieces.ts";
import type { Keys } from "../store/store.ts";

/** Uploads that are under way at a time, and the bytes that were announced for all of them. */
export const UPLOADS_MAX = 256;
export const UPLOAD_BYTES_MAX = 1_073_741_824;
/** An upload of which no piece has come for so long is forgotten. */
export const UPLOAD_IDLE_MS = 600_000;
/** One that has rested for so long gives way where there is no room for another: a piece takes 2 s at 1 Mbit/s, and 44 s at 48 kbit/s. */
export const UPLOAD_REST_MS = 60_000;

export type Offer = Extract<ContributorMessage, { readonly type: "offer" }>;
export type Hash = (bytes: Bytes) => Promise<Digest>;

export interface Upload {
  readonly contributor: ContributorId;
  readonly contribution: ContributionId;
  readonly header: ContributionHeader;
  readonly offer: Offer;
  /** Of the network it comes from; null for this machine's own, and for what an earlier process began. */
  readonly prefix: string | null;
  /** Pieces in all, and those that are here. */
  readonly count: number;
  held: number;
  /** When something of it came last. */
  movedMs: number;
  /** A piece that came with another digest and was asked for again. */
  damaged: number | null;
  /** It is complete and on its way into the ledger. */
  taken: boolean;
}

/** What became of a piece: it is durable, it was here or is out of turn and nothing is wrong with that, or why it is not taken. */
export type Added =
  | { readonly type: "held" }
  | { readonly type: "ignored" }
  | { readonly type: "damaged"; readonly again: boolean; readonly detail: string }
  | { readonly type: "misplaced"; readonly detail: string };

export interface UploadsOptions {
  readonly keys: Keys;
  readonly hash: Hash;
  /** Of the room for all, what one network prefix may have. */
  readonly prefixShare: number;
  readonly nowMs: () => number;
}

/** Of the keys under which uploads on their way are kept. */
export const UPLOADS_PREFIX = "upload/";

/** Calls that change the same upload must not overlap. A class because it goes with the store's keys. */
export class Uploads {
  readonly #options: UploadsOptions;
  readonly #uploads = new Map<ContributorId, Upload>();

  constructor(options: UploadsOptions) {
    this.#options = options;
  }

  /** Finds what an earlier process has left, and deletes what it cannot go on with. */
  async read(): Promise<void> {
    const { keys, nowMs } = this.#options;
    const names = new Set(await keys.list(UPLOADS_PREFIX));
    for (const name of names) {
      const [contributor = "", contribution] = name.slice(UPLOADS_PREFIX.length).split("/");
      const bytes = contribution === undefined ? await keys.get(name) : undefined;
      const upload = bytes === undefined ? null : uploadIn(bytes, contributor as ContributorId, nowMs());
      if (upload !== null) {
        while (upload.held < upload.count && names.has(pieceKey(upload, upload.held))) {
          upload.held += 1;
        }
        this.#uploads.set(upload.contributor, upload);
      }
    }
    const kept = new Set(this.all().flatMap(keysOf));
    for (const name of names) {
      if (!kept.has(name)) {
        await keys.delete(name); // also pieces under the keys of versions before, which named no contribution
      }
    }
  }

  all(): readonly Upload[] {
    return [...this.#uploads.values()];
  }

  of(contributor: ContributorId): Upload | undefined {
    return this.#uploads.get(contributor);
  }

  /**
   * The upload of an offer that was checked: the one that is under way, or a new one in place of any other of the device, and of those
   * that have rested longest, as far as it needs their room. Null when there is none, or none for its network prefix.
   */
  async begin(offer: Offer, header: ContributionHeader, prefix: string | null): Promise<Upload | null> {
    const { keys, nowMs } = this.#options;
    const upload = newUpload({ offer, header, prefix, movedMs: nowMs() });
    const before = this.#uploads.get(upload.contributor);
    if (before?.contribution === upload.contribution) {
      before.damaged = null;
      return before;
    }
    if (before !== undefined) {
      this.forget(before);
      await this.erase(before);
    }
    const leaving = this.#leavingFor(upload);
    if (leaving === null) {
      return null;
    }
    for (const rested of leaving) {
      this.forget(rested);
      await this.erase(rested);
    }
    this.#uploads.set(upload.contributor, upload);
    await keys.set(offerKey(upload), encodeMessage(offer));
    return upload;
  }

  /** Takes the next piece; it is durable when this resolves to "held". */
  async add(upload: Upload, index: number, bytes: Bytes): Promise<Added> {
    const { held, count, damaged, offer, header } = upload;
    if (index >= count || (index > held && damaged !== held)) {
      return { type: "misplaced", detail: `got piece ${index}, need ${held} of ${count}` };
    }
    if (index !== held) {
      return { type: "ignored" }; // sent before its sender knew what is here
    }
    const { start, end } = pieceAt(index, { bytes: header.payload.bytes, count });
    if (bytes.length !== end - start) {
      return { type: "misplaced", detail: `piece ${index} has ${bytes.length} bytes, need ${end - start}` };
    }
    if ((await this.#options.hash(bytes)) !== pieceDigest(offer.pieces, index)) {
      upload.damaged = index;
      const detail = `piece ${index} of ${count} (bytes ${start} to ${end}) is not the one that was offered`;
      return { type: "damaged", again: damaged !== index, detail };
    }
    await this.#options.keys.set(pieceKey(upload, index), bytes);
    upload.held += 1;
    upload.damaged = null;
    upload.movedMs = this.#options.nowMs();
    return { type: "held" };
  }

  /** All pieces, put together. Null where the store has lost one: then the upload goes back to that, and those after it come again, too. */
  async payload(upload: Upload): Promise<Bytes | null> {
    const pieces: Bytes[] = [];
    for (let index = 0; index < upload.held; index += 1) {
      const piece = await this.#options.keys.get(pieceKey(upload, index));
      if (piece === undefined) {
        await this.#deletePieces(upload, index + 1);
        upload.held = index;
        upload.movedMs = this.#options.nowMs();
        return null;
      }
      pieces.push(piece);
    }
    return concatBytes(pieces);
  }

  /** Takes no more pieces of it. What is stored stays until it is erased. */
  forget(upload: Upload): void {
    if (this.#uploads.get(upload.contributor) === upload) {
      this.#uploads.delete(upload.contributor);
    }
  }

  /**
   * Deletes what is stored of it: the offer first, so that a process that dies meanwhile leaves only what the next one deletes. What has
   * taken its place stays, even if that is the same contribution again.
   */
  async erase(upload: Upload): Promise<void> {
    const present = this.#uploads.get(upload.contributor);
    if (present === undefined) {
      await this.#options.keys.delete(offerKey(upload));
    }
    await this.#deletePieces(upload, present?.contribution === upload.contribution ? present.held : 0);
  }

  async #deletePieces(upload: Upload, from: number): Promise<void> {
    for (let index = from; index < upload.held; index += 1) {
      await this.#options.keys.delete(pieceKey(upload, index));
    }
  }

  /** Those that give way to it; null where that makes no room. */
  #leavingFor(upload: Upload): readonly Upload[] | null {
    const { prefixShare, nowMs } = this.#options;
    const restedMs = nowMs() - UPLOAD_REST_MS;
    const all = this.all();
    const ownRoom = { uploads: Math.max(1, UPLOADS_MAX * prefixShare), bytes: UPLOAD_BYTES_MAX * prefixShare };
    const own = upload.prefix === null ? [] : all.filter(({ prefix }) => prefix === upload.prefix);
    const leaving = fewest(own, upload, ownRoom, restedMs);
    const others = all.filter((one) => leaving?.includes(one) !== true);
    const alsoLeaving = fewest(others, upload, { uploads: UPLOADS_MAX, bytes: UPLOAD_BYTES_MAX }, restedMs);
    return leaving === null || alsoLeaving === null ? null : [...leaving, ...alsoLeaving];
  }
}

/** The fewest that have to go so that one more fits, those that have rested longest first; null where it does not fit. One alone always does. */
function fewest(
  uploads: readonly Upload[],
  { header }: Upload,
  room: { readonly uploads: number; readonly bytes: number },
  restedMs: number,
): readonly Upload[] | null {
  const rested = uploads
    .filter(({ held, count, movedMs }) => held < count && movedMs <= restedMs)
    .sort((a, b) => a.movedMs - b.movedMs);
  let announced = uploads.reduce((sum, one) => sum + one.header.payload.bytes, header.payload.bytes);
  for (let leaving = 0; leaving <= rested.length; leaving += 1) {
    const left = uploads.length - leaving;
    if (left === 0 || (left + 1 <= room.uploads && announced <= room.bytes)) {
      return rested.slice(0, leaving);
    }
    announced -= rested[leaving]?.header.payload.bytes ?? 0;
  }
  return null;
}

function newUpload({
  offer,
  header,
  prefix,
  movedMs,
}: Pick<Upload, "offer" | "header" | "prefix" | "movedMs">): Upload {
  const contribution = contributionIdOf(offer.header);
  const count = piecesOffered(offer);
  const { contributor } = header;
  return { contributor, contribution, header, offer, prefix, count, held: 0, movedMs, damaged: null, taken: false };
}

/** The upload of a stored offer; null when it cannot be read. */
function uploadIn(bytes: Bytes, contributor: ContributorId, nowMs: number): Upload | null {
  const offer = decodeContributorMessage(bytes);
  if (!offer.ok || offer.value.type !== "offer") {
    return null;
  }
  const header = decodeHeader(offer.value.header);
  return header.ok && header.value.contributor === contributor
    ? newUpload({ offer: offer.value, header: header.value, prefix: null, movedMs: nowMs })
    : null;
}

function offerKey({ contributor }: Upload): string {
  return `${UPLOADS_PREFIX}${contributor}`;
}

/** Of the contribution, too: what another one of the device has left, and is erased only later, is not taken for its own. */
function pieceKey(upload: Upload, index: number): string {
  return `${offerKey(upload)}/${upload.contribution}/${index}`;
}

/** Those that may be in the store for it. */
function keysOf(upload: Upload): readonly string[] {
  const pieces = Array.from({ length: upload.held }, (_, index) => pieceKey(upload, index));
  return [offerKey(upload), ...pieces];
}
