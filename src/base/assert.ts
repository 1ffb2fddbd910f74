/**
 * Assertions and typed errors. A broken assertion is a bug in Heddle and stays on in production; a missing capability or
 * unusable input at an entry point is a `HeddleError` with a code; the outside world's mistakes are returned as refusals
 * (see `protocol/verdict.ts`) and never thrown.
 */

/** Throws when `condition` is false. The message names the action, then what is and what should be. */
export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) {
    throw new AssertionError(message);
  }
}

/** Returns `value`, which the caller knows to be present; throws otherwise. */
export function present<T>(value: T | undefined | null, what: string): T {
  assert(value !== undefined && value !== null, `Cannot continue: ${what} is missing`);
  return value;
}

export class AssertionError extends Error {
  override readonly name = "AssertionError";
}

/** Codes of failures that a person at an entry point can act on. */
export type ErrorCode =
  | "bad-input" // a file, flag, URL or message that does not have the form it must have
  | "limit" // something is larger than a named limit
  | "integrity" // bytes do not hash to the digest they were asked for by
  | "no-engine" // the machine cannot run the engine that was asked for
  | "model-too-big" // the model does not fit the device; the message says by how much
  | "device-lost" // the GPU went away
  | "device-wrong" // the device computes wrong numbers (conformance self-test)
  | "unreachable" // the relay does not answer
  | "absent" // the relay answers, and does not have what it was asked for
  | "taken" // an address or port of this machine cannot be had
  | "refused" // the relay does not let this device take part
  | "changed" // another relay or run than before is served there; another start takes part in that
  | "store" // the store cannot be opened, or is in use by another process
  | "consent"; // the person has not agreed, or the agreement has ended

/** A failure at an entry point: a code for programs and one plain sentence for people. */
export class HeddleError extends Error {
  override readonly name = "HeddleError";
  readonly code: ErrorCode;
  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** What an error that came from outside says. */
export function messageIn(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** What another start would not change. */
const LASTING: readonly ErrorCode[] = ["bad-input", "model-too-big", "refused", "consent"];

/** What a process ends with that `error` ends: 2 where another start would end the same way, else 1. */
export function exitCodeOf(error: unknown): 1 | 2 {
  return error instanceof HeddleError && LASTING.includes(error.code) ? 2 : 1;
}

/** How a command ends that `error` was thrown in: with a sentence for standard error, and its exit code. Rethrows a bug. */
export function endingOf(error: unknown): { readonly sentence: string; readonly exitCode: 1 | 2 } {
  if (!(error instanceof HeddleError)) {
    throw error;
  }
  return { sentence: error.message, exitCode: exitCodeOf(error) };
}
