/**
 * Readers: small functions that check one decoded value and return it with its type. A record's reader lists every field
 * with its reader, in wire order; a field that the type has and the list lacks is a type error, an unknown field on the wire
 * is refused, and the value that comes out has its fields in wire order, which is what makes encoding canonical.
 *
 * Readers throw `FieldError`, and only `checked` catches it: outside of the codec a mistake in foreign bytes is a returned
 * refusal, inside it would take a test after every field.
 */
import { decode, Encoder } from "@msgpack/msgpack";
import { assert } from "../base/assert.ts";
import { equalBytes, isDigest, type Bytes } from "../base/bytes.ts";
import { TEXT_CHARS_MAX } from "./limits.ts";
import { scanMsgpack, type ScanLimits } from "./scan.ts";
import { accept, refuse, type Checked, type Reason } from "./verdict.ts";

/** Checks `value`, found at `path`, and returns it; throws FieldError. */
export type Reader<T> = (value: unknown, path: string) => T;

/** A field that does not have the form it must have; never leaves the codec. */
export class FieldError extends Error {
  override readonly name = "FieldError";
  readonly reason: Reason;
  constructor(message: string, reason: Reason = "malformed") {
    super(message);
    this.reason = reason;
  }
}

/** Runs `read` and returns its value, or the refusal that a FieldError inside of it stands for. */
export function checked<T>(read: () => T): Checked<T> {
  try {
    return accept(read());
  } catch (error) {
    if (error instanceof FieldError) {
      return refuse(error.reason, error.message);
    }
    throw error;
  }
}

/** Scans, then decodes one msgpack value; throws FieldError. */
export function decodeValue(bytes: Uint8Array, limits: ScanLimits): unknown {
  const wrong = scanMsgpack(bytes, limits);
  if (wrong !== null) {
    throw new FieldError(`Cannot read message: ${wrong}`);
  }
  try {
    return decode(bytes, {
      maxStrLength: limits.stringBytesMax,
      maxBinLength: limits.binBytesMax,
      maxArrayLength: limits.valuesMax,
      maxMapLength: limits.valuesMax,
      maxExtLength: 0,
    });
  } catch (error) {
    // What is left after the scan: keys that are not text, the key "__proto__", text that is not UTF-8.
    throw new FieldError(`Cannot read message: ${String(error)}`);
  }
}

/** What is expected to be longer is encoded into memory of its own, in place. */
const SHARED_BYTES = 4_096;
/** Making an encoder and its memory takes longer than most values: this one is used again, and grows to the longest value. */
const encoder = new Encoder({ initialBufferSize: SHARED_BYTES });

/** The msgpack of `value`, which must satisfy `reader`: anything else is a bug of the caller. Fields get their wire order. */
export function encodeValue<T>(reader: Reader<T>, value: T, what: string, bytesHint = 2_048): Bytes {
  const ordered = checked(() => reader(value, what));
  assert(ordered.ok, ordered.ok ? "" : `Cannot encode ${what}: ${ordered.detail}`);
  return bytesHint > SHARED_BYTES
    ? (new Encoder({ initialBufferSize: bytesHint }).encodeSharedRef(ordered.value) as Bytes)
    : encoder.encode(ordered.value);
}

/** Reads canonical bytes: they must be exactly what `encodeValue` makes of what they say. Throws FieldError. */
export function readCanonical<T>(reader: Reader<T>, bytes: Uint8Array, what: string, limits: ScanLimits): T {
  const value = reader(decodeValue(bytes, limits), what);
  if (!equalBytes(encoder.encodeSharedRef(value), bytes)) {
    throw new FieldError(`Cannot read ${what}: its bytes are not in the canonical encoding`);
  }
  return value;
}

/** A record with exactly these fields, read in this order. */
export function record<T extends object>(fields: { readonly [K in keyof T]-?: Reader<T[K]> }): Reader<T> {
  const names = Object.keys(fields) as (keyof T & string)[];
  return (value, path) => {
    if (typeof value !== "object" || value === null || Array.isArray(value) || ArrayBuffer.isView(value)) {
      throw new FieldError(`Cannot read ${path}: need a map`);
    }
    const source = value as Record<string, unknown>;
    for (const key of Object.keys(source)) {
      if (!Object.hasOwn(fields, key)) {
        throw new FieldError(`Cannot read ${path}: got the unknown field "${key.slice(0, 40)}"`);
      }
    }
    const result: Partial<Record<keyof T & string, unknown>> = {};
    for (const name of names) {
      if (!Object.hasOwn(source, name)) {
        throw new FieldError(`Cannot read ${path}: the field "${name}" is missing`);
      }
      result[name] = fields[name](source[name], `${path}.${name}`);
    }
    return result as T;
  };
}

/** A record chosen by the value of its field `type`. */
export function tagged<T extends { readonly type: string }>(variants: {
  readonly [K in T["type"]]: Reader<Extract<T, { readonly type: K }>>;
}): Reader<T> {
  return (value, path) => {
    const type = typeof value === "object" && value !== null ? (value as { readonly type?: unknown }).type : undefined;
    if (typeof type !== "string" || !Object.hasOwn(variants, type)) {
      throw new FieldError(`Cannot read ${path}: its type is not one of ${Object.keys(variants).join(", ")}`);
    }
    return variants[type as T["type"]](value, path) as T;
  };
}

/** Between `min` and `max` values, all read by `item`. */
export function list<T>(item: Reader<T>, min: number, max: number): Reader<readonly T[]> {
  return (value, path) => {
    if (!Array.isArray(value) || value.length < min || value.length > max) {
      const got = Array.isArray(value) ? `${value.length}` : "no list";
      throw new FieldError(`Cannot read ${path}: got ${got}, need ${min} … ${max} values`);
    }
    return value.map((one: unknown, i) => item(one, `${path}[${i}]`));
  };
}

export function nullable<T>(reader: Reader<T>): Reader<T | null> {
  return (value, path) => (value === null ? null : reader(value, path));
}

export function oneOf<const T extends string | number>(values: readonly T[]): Reader<T> {
  return (value, path) => {
    if (!(values as readonly unknown[]).includes(value)) {
      throw new FieldError(`Cannot read ${path}: got ${shown(value)}, need one of ${values.join(", ")}`);
    }
    return value as T;
  };
}

/** An integer between `min` and `max`, inclusive. */
export function integer(min: number, max: number): Reader<number> {
  return (value, path) => {
    if (typeof value !== "number" || !Number.isSafeInteger(value) || value < min || value > max) {
      throw new FieldError(`Cannot read ${path}: got ${shown(value)}, need an integer in ${min} … ${max}`);
    }
    return value + 0; // −0 becomes 0
  };
}

/** A finite number between `min` and `max`, inclusive. */
export function real(min: number, max: number): Reader<number> {
  return (value, path) => {
    if (typeof value !== "number" || !(value >= min && value <= max)) {
      throw new FieldError(`Cannot read ${path}: got ${shown(value)}, need a number in ${min} … ${max}`);
    }
    return value + 0;
  };
}

/** Any number, infinities and NaN included: what was measured is said as it is. */
export const measured: Reader<number> = (value, path) => {
  if (typeof value !== "number") {
    throw new FieldError(`Cannot read ${path}: got ${shown(value)}, need a number`);
  }
  return value + 0;
};

export const boolean: Reader<boolean> = (value, path) => {
  if (typeof value !== "boolean") {
    throw new FieldError(`Cannot read ${path}: got ${shown(value)}, need true or false`);
  }
  return value;
};

/**
 * Text of at most `charsMax` UTF-16 code units; without control characters unless `lines` allows line breaks and tabs, and without
 * a byte order mark in front: the decoder takes it off long texts, so that what was written could not be read back.
 */
export function text(charsMax = TEXT_CHARS_MAX, { charsMin = 0, lines = false } = {}): Reader<string> {
  // oxlint-disable-next-line no-control-regex -- refusing control characters is the point
  const refused = lines ? /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f]/ : /[\u0000-\u001f\u007f]/;
  return (value, path) => {
    if (typeof value !== "string" || value.length < charsMin || value.length > charsMax) {
      const got = typeof value === "string" ? `${value.length} characters` : shown(value);
      throw new FieldError(`Cannot read ${path}: got ${got}, need text of ${charsMin} … ${charsMax} characters`);
    }
    if (refused.test(value)) {
      throw new FieldError(`Cannot read ${path}: it contains control characters`);
    }
    if (value.startsWith("\ufeff")) {
      throw new FieldError(`Cannot read ${path}: it begins with a byte order mark`);
    }
    return value;
  };
}

/** A SHA-256 as 64 lower-case hexadecimal digits: Digest, ContributorId or ContributionId. */
export function digest<T extends string>(): Reader<T> {
  return (value, path) => {
    if (!isDigest(value)) {
      throw new FieldError(`Cannot read ${path}: got ${shown(value)}, need 64 hexadecimal digits`);
    }
    return value as string as T;
  };
}

/** Short binary fields are copied out of the message, so that keeping one does not keep the whole message in memory. */
const COPIED_BYTES_MAX = 4_096;

/** Between `min` and `max` bytes. */
export function binary(min: number, max: number): Reader<Bytes> {
  return (value, path) => {
    if (!(value instanceof Uint8Array) || value.length < min || value.length > max) {
      const got = value instanceof Uint8Array ? `${value.length} bytes` : shown(value);
      throw new FieldError(`Cannot read ${path}: got ${got}, need ${min} … ${max} bytes`);
    }
    return (value.length <= COPIED_BYTES_MAX ? value.slice() : value) as Bytes;
  };
}

function shown(value: unknown): string {
  if (typeof value === "string") {
    return `"${value.slice(0, 40)}"`;
  }
  return typeof value === "number" || typeof value === "boolean" || value === null ? String(value) : typeof value;
}
