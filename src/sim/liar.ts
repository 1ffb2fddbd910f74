/**
 * Contributors that cheat, each in one way. Two hand on something else than what training made; the others are honest
 * programs whose messages are changed on the way out, with the liar's own key where a signature is needed. Every lie must
 * end in a refusal: the oracle looks for a liar's contribution in the base.
 */
import { concatBytes, digestOf, type Bytes, type Digest } from "../base/bytes.ts";
import type { Rng } from "../base/rng.ts";
import type { Compression } from "../protocol/charter.ts";
import { decodeContributorMessage, decodeHeader, encodeHeader, encodeMessage } from "../protocol/codec.ts";
import type { ContributionHeader } from "../protocol/messages.ts";
import { packUpdate } from "../update/pack.ts";
import type { SimKey } from "./keys.ts";

export const LIES = [
  "noise",
  "flipped-sign",
  "wrong-base",
  "replay",
  "not-finite",
  "truncated",
  "oversized",
  "bad-signature",
] as const;
export type Lie = (typeof LIES)[number];

/** Bytes of nothing at the end of an oversized update. */
const PADDING_BYTES = 70_000;

/** What training made, [P], turned into what is handed on. */
export function twistOf(
  lie: Lie | null,
): (base: Float32Array, after: Float32Array<ArrayBuffer>, rng: Rng) => Float32Array<ArrayBuffer> {
  switch (lie) {
    case "noise":
      return (base, _after, rng) => base.map((value) => value + 6 * (rng.float() - 0.5)) as Float32Array<ArrayBuffer>;
    case "flipped-sign":
      return (base, after) => after.map((value, i) => 2 * (base[i] as number) - value);
    default:
      return (_base, after) => after;
  }
}

export interface LiarOptions {
  readonly lie: Lie;
  readonly key: SimKey;
  readonly rng: Rng;
  readonly compression: Compression;
  /** Others' payloads that everybody can fetch; what is still on its way to the relay nobody else has read. */
  readonly published: readonly Bytes[];
}

/** What a liar's machine sends in place of a message. */
export function lieAbout(message: Bytes, { lie, key, rng, compression, published }: LiarOptions): readonly Bytes[] {
  if (lie === "noise" || lie === "flipped-sign") {
    return [message];
  }
  const decoded = decodeContributorMessage(message);
  if (!decoded.ok || decoded.value.type !== "contribute") {
    return [message];
  }
  const { header, signature, payload } = decoded.value;
  const read = decodeHeader(header);
  if (!read.ok) {
    return [message];
  }
  const resend = (change: Partial<ContributionHeader>, bytes: Uint8Array): readonly Bytes[] => {
    const body = bytes.slice() as Bytes;
    const next = encodeHeader({ ...read.value, payload: { digest: digestOf(body), bytes: body.length }, ...change });
    return [
      encodeMessage({ type: "contribute", header: next, signature: key.signNow("contribution", next), payload: body }),
    ];
  };
  switch (lie) {
    case "wrong-base":
      return resend({ baseDigest: digestOf(Uint8Array.of(rng.below(256))) as Digest }, payload);
    case "replay": {
      const other = published[rng.below(Math.max(1, published.length))];
      return other === undefined ? [] : resend({}, other);
    }
    case "not-finite": {
      const packed = packUpdate(new Float64Array(parametersOf(payload)).fill(1), { ...compression, bits: 64 });
      new DataView(packed.buffer, packed.byteOffset).setFloat64(packed.length - 8, Number.NaN, true);
      return resend({}, packed);
    }
    case "truncated":
      return resend({}, payload.subarray(0, 1 + rng.below(payload.length - 1)));
    case "oversized":
      return resend({}, concatBytes([payload, new Uint8Array(PADDING_BYTES)]));
    case "bad-signature": {
      const broken = signature.slice();
      const at = rng.below(broken.length);
      broken[at] = (broken[at] ?? 0) ^ 0x55;
      return [encodeMessage({ type: "contribute", header, signature: broken, payload })];
    }
    default:
      return lie satisfies never;
  }
}

/** P, from a packed update's header (`update/format.ts`). */
function parametersOf(payload: Uint8Array): number {
  return new DataView(payload.buffer, payload.byteOffset).getUint32(8, true);
}
