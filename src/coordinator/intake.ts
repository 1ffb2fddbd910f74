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

type Contribute = Pick<
  Extract<ContributorMessage, { readonly type: "contribute" }>,
  "header" | "signature" | "payload"
>;
type Report = Extract<ContributorMessage, { readonly type: "report" }>;

/** Checks a contribution that is here as a whole and, when it holds and its time has come, stores its payload. */
export async function takeContribution(
  options: IntakeOptions,
  sender: Sender,
  { header: headerBytes, signature, payload }: Contribute,
  wireBytes: number,
): Promise<Intake | Offered> {
  const taken = await takeHeader(options, sender, { header: headerBytes, signature });
  if (taken.type !== "offered" || taken.soon) {
    return taken;
  }
  const { header } = taken;
  const contribution = contributionIdOf(headerBytes);
  const norm = await readPayload(options, header, payload);
  if (!norm.ok) {
    return rejected(sender, contribution, norm, isPresent(options, header));
  }
  await options.blobs.put(payload.slice());
  const { session } = sender;
  const event: CoordinatorEvent = {
    type: "contributed",
    session,
    contribution,
    header,
    headerBytes,
    signature,
    norm: norm.value,
    wireBytes,
  };
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
function isPresent({ state: { durable } }: Pick<IntakeOptions, "state">, { round }: ContributionHeader): boolean {
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
  { header: headerBytes, signature }: Pick<Contribute, "header" | "signature">,
): Promise<Intake | Offered> {
  const contribution = contributionIdOf(headerBytes);
  const reject = (reason: Reason, ends: boolean, detail: string): Intake =>
    rejected(sender, contribution, { reason, detail }, ends);
  const header = decodeHeader(headerBytes);
  if (!header.ok) {
    return reject(header.reason, true, header.detail);
  }
  const screened = screen(state, sender.session, contribution, header.value);
  switch (screened.type) {
    case "known":
      return { type: "again", contribution, verdict: screened.verdict };
    case "refused":
      return reject(screened.reason, screened.ends, "its header does not fit the round");
    case "passed":
    case "soon":
      break;
    default:
      screened satisfies never;
  }
  if (!(await verify(sender.publicKey, "contribution", headerBytes, signature))) {
    return reject("bad-signature", isPresent({ state }, header.value), "the header's signature does not match");
  }
  return { type: "offered", header: header.value, soon: screened.type === "soon" };
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
