/**
 * What the widget's frame and the page that embeds it may say to each other, and nothing else. The frame greets its
 * embedder (`hello`), the embedder answers with a MessagePort, and all later traffic goes over that port. The host can set
 * theme, language and size, and can pause; it can never start, raise the power or consent. The frame reports a state,
 * aggregate numbers and its height. Both ends check every message with these rules; the loader in
 * public/heddle-widget.js carries its own copy of those it needs, and `loader.test.ts` holds the two together.
 */

export const WIDGET_PROTOCOL = 1;
/** Messages taken from the host in any ten seconds; more are dropped. */
const HOST_MESSAGES_MAX = 50;
const HOST_WINDOW_MS = 10_000;
export const HEIGHT_MIN = 40;
export const HEIGHT_MAX = 1_200;
const NONCE = /^[0-9a-f]{32}$/;
const LANGUAGE = /^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}$/;

export type HostMessage =
  | { readonly type: "theme"; readonly theme: "light" | "dark" | "auto" }
  | { readonly type: "lang"; readonly lang: string }
  | { readonly type: "size"; readonly size: "compact" | "normal" }
  | { readonly type: "pause" };

export const WIDGET_STATES = ["idle", "asking", "starting", "working", "paused", "stopped", "failed"] as const;
export type WidgetState = (typeof WIDGET_STATES)[number];

export type FrameMessage =
  | {
      readonly type: "state";
      readonly state: WidgetState;
      readonly tokensPerS: number;
      readonly tokensTotal: number;
      readonly accepted: number;
    }
  | { readonly type: "height"; readonly px: number };

export interface Hello {
  readonly type: "heddle-hello";
  readonly nonce: string;
  readonly version: number;
}

export interface Answer {
  readonly type: "heddle-port";
  readonly nonce: string;
}

/** The answer that carries the port, or null for anything else. */
export function checkAnswer(data: unknown, nonce: string): Answer | null {
  const record = recordOf(data, ["type", "nonce"]);
  return record !== null && record["type"] === "heddle-port" && record["nonce"] === nonce && NONCE.test(nonce)
    ? { type: "heddle-port", nonce }
    : null;
}

/** A message of the host, rebuilt from its checked fields; null when it is anything else. */
export function checkHostMessage(data: unknown): HostMessage | null {
  const type = typeOf(data);
  if (type === "pause") {
    return recordOf(data, ["type"]) === null ? null : { type };
  }
  if (type === "theme") {
    const theme = recordOf(data, ["type", "theme"])?.["theme"];
    return theme === "light" || theme === "dark" || theme === "auto" ? { type, theme } : null;
  }
  if (type === "size") {
    const size = recordOf(data, ["type", "size"])?.["size"];
    return size === "compact" || size === "normal" ? { type, size } : null;
  }
  if (type === "lang") {
    const lang = recordOf(data, ["type", "lang"])?.["lang"];
    return typeof lang === "string" && lang.length <= 35 && isLanguage(lang) ? { type, lang } : null;
  }
  return null;
}

/** Also by the browser, which refuses to write numbers for what only looks like a tag. */
function isLanguage(tag: string): boolean {
  try {
    return LANGUAGE.test(tag) && Intl.getCanonicalLocales(tag).length === 1;
  } catch {
    return false;
  }
}

/** A message of the frame, rebuilt from its checked fields; null when it is anything else. */
export function checkFrameMessage(data: unknown): FrameMessage | null {
  const type = typeOf(data);
  if (type === "height") {
    const px = recordOf(data, ["type", "px"])?.["px"];
    return isCount(px) && px >= HEIGHT_MIN && px <= HEIGHT_MAX ? { type, px } : null;
  }
  if (type === "state") {
    const record = recordOf(data, ["type", "state", "tokensPerS", "tokensTotal", "accepted"]);
    const state = WIDGET_STATES.find((name) => name === record?.["state"]);
    const { tokensPerS, tokensTotal, accepted } = record ?? {};
    return state !== undefined && isCount(tokensPerS) && isCount(tokensTotal) && isCount(accepted)
      ? { type, state, tokensPerS, tokensTotal, accepted }
      : null;
  }
  return null;
}

/** Lets `max` messages through in any window of `windowMs`. */
export function createThrottle(max = HOST_MESSAGES_MAX, windowMs = HOST_WINDOW_MS): (nowMs: number) => boolean {
  let times: number[] = [];
  return (nowMs) => {
    times = times.filter((time) => nowMs - time < windowMs);
    if (times.length >= max) {
      return false;
    }
    times.push(nowMs);
    return true;
  };
}

/** 128 random bits in hexadecimal. */
export function makeNonce(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function typeOf(data: unknown): unknown {
  return typeof data === "object" && data !== null && Object.hasOwn(data, "type")
    ? (data as { type: unknown }).type
    : null;
}

/** The data as a record when it has exactly these own fields. */
function recordOf(data: unknown, fields: readonly string[]): Record<string, unknown> | null {
  if (typeof data !== "object" || data === null) {
    return null;
  }
  const names = Object.keys(data);
  return names.length === fields.length && fields.every((field) => names.includes(field))
    ? (data as Record<string, unknown>)
    : null;
}

function isCount(value: unknown): value is number {
  return typeof value === "number" && Number.isFinite(value) && value >= 0;
}
