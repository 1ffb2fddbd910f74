/**
 * Takes in what participants send: turns a contribution or a report into a coordinator's event, checking on the way what
 * needs bytes, keys or the store. Checks come in the order of their price, and nothing a participant sends makes this throw.
 */
import { digestOf, type Bytes, type ContributionId } from "../base/bytes.ts";
import { contributionIdOf, decodeHeader, decodeReport } from "../protocol/codec.ts";
import type { ContributionHeader, ContributorMessage } from "../protocol/messages.ts";
import { refuse, type Checked, type Reason, type Verdict } from "../protocol/verdict.ts";
import type { Blobs } from "../store/store.ts";
import { updateNorm } from "../update/delta.ts";
import { unpackPayload } from "./base.ts";
import type { CoordinatorEvent, CoordinatorState, SessionId } from "./live.ts";
import { screen } from "./screen.ts";

export interface Sender {
  readonly session: SessionId;
  readonly publicKey: Bytes;
}

export interface IntakeOptions {
  readonly state: CoordinatorState;
  readonly blobs: Blobs;
  /** Whether a signature of `sender` under `purpose` holds. */
  readonly verify: (publicKey: Bytes, purpose: string, message: Bytes, signature: Bytes) => Promise<boolean>;
}

export type Intake =
  | { readonly type: "event"; readonly event: CoordinatorEvent; readonly detail: string }
  /** Received before: the same answer again, or none while there is none. */
  | { readonly type: "again"; readonly contribution: ContributionId; readonly verdict: Verdict | null }
  | { readonly type: "refused"; readonly reason: Reason; readonly detail: string };

type Contribute = Extract<ContributorMessage, { readonly type: "contribute" }>;
type Report = Extract<ContributorMessage, { readonly type: "report" }>;

/** Checks a contribution and, when it holds, stores its payload. */
export async function takeContribution(
  { state, blobs, verify }: IntakeOptions,
  { session, publicKey }: Sender,
  { header: headerBytes, signature, payload }: Contribute,
  wireBytes: number,
): Promise<Intake> {
  const contribution = contributionIdOf(headerBytes);
  const reject = (reason: Reason, ends: boolean, detail: string): Intake => ({
    type: "event",
    event: { type: "rejected", session, contribution, reason, ends },
    detail,
  });
  const header = decodeHeader(headerBytes);
  if (!header.ok) {
    return reject(header.reason, true, header.detail);
  }
  const screened = screen(state, session, contribution, header.value);
  switch (screened.type) {
    case "known":
      return { type: "again", contribution, verdict: screened.verdict };
    case "refused":
      return reject(screened.reason, screened.ends, "its header does not fit the round");
    case "passed":
      break;
    default:
      screened satisfies never;
  }
  if (!(await verify(publicKey, "contribution", headerBytes, signature))) {
    return reject("bad-signature", true, "the header's signature does not match");
  }
  const norm = readPayload(state, header.value, payload);
  if (!norm.ok) {
    return reject(norm.reason, true, norm.detail);
  }
  await blobs.put(payload.slice());
  const event: CoordinatorEvent = {
    type: "contributed",
    session,
    contribution,
    header: header.value,
    headerBytes,
    signature,
    norm: norm.value,
    wireBytes,
  };
  return { type: "event", event, detail: "" };
}

/** The norm of the payload that `header` names. */
function readPayload(
  { charter, durable }: CoordinatorState,
  header: ContributionHeader,
  payload: Bytes,
): Checked<number> {
  const { bytes, digest } = header.payload;
  if (payload.length !== bytes) {
    const reason = payload.length < bytes ? "truncated" : "malformed";
    return refuse(reason, `Cannot read payload: got ${payload.length} bytes, its header says ${bytes}`);
  }
  if (digestOf(payload) !== digest) {
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
