/**
 * Takes in what participants send: turns a contribution or a report into a coordinator's event, checking on the way what
 * needs bytes, keys or the store. Checks come in the order of their price, and nothing a participant sends makes this throw.
 */
import type { Bytes, ContributionId } from "../base/bytes.ts";
import { contributionIdOf, decodeHeader, decodeReport } from "../protocol/codec.ts";
import type { ContributionHeader, ContributorMessage } from "../protocol/messages.ts";
import { canBeCut, piecesOffered } from "../protocol/pieces.ts";
import { refuse, type Checked, type Reason, type Verdict } from "../protocol/verdict.ts";
import type { Blobs } from "../store/store.ts";
import { updateNorm } from "../update/delta.ts";
import { payloadBytesMax, unpackPayload } from "./base.ts";
import type { CoordinatorEvent, CoordinatorState, SessionId } from "./live.ts";
import { screen } from "./screen.ts";
import type { Hash, Offer } from "./uploads.ts";

export interface Sender {
  readonly session: SessionId;
  readonly publicKey: Bytes;
}

export interface IntakeOptions {
  readonly state: CoordinatorState;
  readonly blobs: Blobs;
  /** Whether a signature of `sender` under `purpose` holds. */
  readonly verify: (publicKey: Bytes, purpose: string, message: Bytes, signature: Bytes) => Promise<boolean>;
  readonly hash: Hash;
}

export type Intake =
  | { readonly type: "event"; readonly event: CoordinatorEvent; readonly detail: string }
  /** Received before: the same answer again, or none while there is none. */
  | { readonly type: "again"; readonly contribution: ContributionId; readonly verdict: Verdict | null }
  | { readonly type: "refused"; readonly reason: Reason; readonly detail: string };

/** A header whose payload may come. `soon`: to be taken in when the next round is open. */
export interface Offered {
  readonly type: "offered";
  readonly header: ContributionHeader;
  readonly soon: boolean;
}

/** A contribution that is here as a whole. */
export type Whole = Pick<
  Extract<ContributorMessage, { readonly type: "contribute" }>,
  "header" | "signature" | "payload"
>;

/** A contribution in which nothing is wrong, as the state was when it was checked; its payload is stored. */
export interface Sound extends Offered {
  readonly soon: false;
  readonly norm: number;
}

/** A contribution whose round is over and whose time comes with the next one; its payload was not looked at. */
export interface Soon extends Offered {
  readonly soon: true;
}

type Report = Extract<ContributorMessage, { readonly type: "report" }>;

/**
 * Checks a contribution that is here as a whole and, when it holds and its time has come, stores its payload. Several may be checked at
 * a time.
 */
export async function checkContribution(
  options: IntakeOptions,
  sender: Sender,
  { header: headerBytes, signature, payload }: Whole,
): Promise<Intake | Sound | Soon> {
  const taken = await takeHeader(options, sender, { header: headerBytes, signature });
  if (taken.type !== "offered") {
    return taken;
  }
  if (taken.soon) {
    return { ...taken, soon: true };
  }
  const norm = await readPayload(options, taken.header, payload);
  if (!norm.ok) {
    return rejected(sender, contributionIdOf(headerBytes), norm, isPresent(options, taken.header));
  }
  await options.blobs.put(payload.slice());
  return { ...taken, soon: false, norm: norm.value };
}

/**
 * Takes a contribution that was checked. The state may be another by now, so what header and state decide is looked at again, first. It
 * has to wait where the next round is not open, or was not when it was checked.
 */
export function takeContribution(
  state: CoordinatorState,
  sender: Sender,
  { header: headerBytes, signature }: Pick<Whole, "header" | "signature">,
  { checked, wireBytes }: { readonly checked: Intake | Sound | Soon; readonly wireBytes: number },
): Intake | Soon {
  const contribution = contributionIdOf(headerBytes);
  const decoded =
    checked.type === "offered" ? ({ ok: true, value: checked.header } as const) : decodeHeader(headerBytes);
  const now = decoded.ok ? screenHeader(state, sender, contribution, decoded.value) : null;
  if (now !== null && now.type !== "offered") {
    return now;
  }
  if (checked.type !== "offered") {
    return checked;
  }
  if (checked.soon || now?.soon !== false) {
    return { ...checked, soon: true };
  }
  const { session } = sender;
  const { header, norm } = checked;
  const event = {
    type: "contributed",
    session,
    contribution,
    header,
    headerBytes,
    signature,
    norm,
    wireBytes,
  } as const;
  return { type: "event", event, detail: "" };
}

/** Checks all of a contribution that can be checked before its payload is here. */
export async function takeOffer(options: IntakeOptions, sender: Sender, offer: Offer): Promise<Intake | Offered> {
  const taken = await takeHeader(options, sender, offer);
  if (taken.type !== "offered") {
    return taken;
  }
  const { bytes } = taken.header.payload;
  const { charter, durable } = options.state;
  const bytesMax = payloadBytesMax(durable.head.checkpointBytes / 4, charter);
  const pieces = piecesOffered(offer);
  const wrong =
    bytes > bytesMax
      ? refuse("oversized", `Cannot take an offer: got ${bytes} bytes, need at most ${bytesMax}`)
      : canBeCut(bytes, pieces)
        ? null
        : refuse("malformed", `Cannot take an offer: ${bytes} bytes cannot be cut into ${pieces} pieces`);
  return wrong === null
    ? taken
    : rejected(sender, contributionIdOf(offer.header), wrong, isPresent(options, taken.header));
}

/** Whether it answers the present round's assignment, which ends with it. */
export function isPresent(
  { state: { durable } }: Pick<IntakeOptions, "state">,
  { round }: ContributionHeader,
): boolean {
  return round === durable.round;
}

/** `ends`: the contributor's assignment is over. */
export function rejected(
  { session }: Pick<Sender, "session">,
  contribution: ContributionId,
  { reason, detail }: { readonly reason: Reason; readonly detail: string },
  ends: boolean,
): Intake {
  return { type: "event", event: { type: "rejected", session, contribution, reason, ends }, detail };
}

async function takeHeader(
  { state, verify }: IntakeOptions,
  sender: Sender,
  { header: headerBytes, signature }: Pick<Whole, "header" | "signature">,
): Promise<Intake | Offered> {
  const contribution = contributionIdOf(headerBytes);
  const header = decodeHeader(headerBytes);
  if (!header.ok) {
    return rejected(sender, contribution, header, true);
  }
  const screened = screenHeader(state, sender, contribution, header.value);
  if (screened.type !== "offered") {
    return screened;
  }
  if (!(await verify(sender.publicKey, "contribution", headerBytes, signature))) {
    const detail = "the header's signature does not match";
    return rejected(sender, contribution, { reason: "bad-signature", detail }, isPresent({ state }, header.value));
  }
  return screened;
}

/** What header and state say. */
function screenHeader(
  state: CoordinatorState,
  sender: Sender,
  contribution: ContributionId,
  header: ContributionHeader,
): Intake | Offered {
  const screened = screen(state, sender.session, contribution, header);
  switch (screened.type) {
    case "known":
      return { type: "again", contribution, verdict: screened.verdict };
    case "refused": {
      const detail = "its header does not fit the round";
      return rejected(sender, contribution, { reason: screened.reason, detail }, screened.ends);
    }
    case "passed":
    case "soon":
      return { type: "offered", header, soon: screened.type === "soon" };
    default:
      return screened satisfies never;
  }
}

/** The norm of the payload that `header` names. */
async function readPayload(
  { state: { charter, durable }, hash }: IntakeOptions,
  header: ContributionHeader,
  payload: Bytes,
): Promise<Checked<number>> {
  const { bytes, digest } = header.payload;
  if (payload.length !== bytes) {
    const reason = payload.length < bytes ? "truncated" : "malformed";
    return refuse(reason, `Cannot read payload: got ${payload.length} bytes, its header says ${bytes}`);
  }
  if ((await hash(payload)) !== digest) {
    return refuse("malformed", "Cannot read payload: its digest is not the one in its header");
  }
  const update = unpackPayload(payload, durable.head.checkpointBytes / 4, charter);
  return update.ok ? { ok: true, value: updateNorm(update.value) } : update;
}

/** Checks a validator's report. Whether it was asked for is the coordinator's question. */
export async function takeReport(
  { state, verify }: IntakeOptions,
  { session, publicKey }: Sender,
  { body, signature }: Report,
): Promise<Intake> {
  const report = decodeReport(body);
  if (!report.ok) {
    return { type: "refused", reason: report.reason, detail: report.detail };
  }
  const { run, validator, assignment, contribution, ...losses } = report.value;
  if (run !== state.durable.run) {
    return { type: "refused", reason: "wrong-run", detail: `the report is for run ${run}` };
  }
  const own = validator === state.live.sessions.get(session)?.contributor;
  if (!own || !(await verify(publicKey, "report", body, signature))) {
    return { type: "refused", reason: "bad-signature", detail: "the report's signature does not match the session" };
  }
  return { type: "event", event: { type: "reported", session, assignment, contribution, losses }, detail: "" };
}
