/**
 * What the operator of a run can change about it: pause and resume, drain, ban and unban. Commands are events of the pure
 * coordinator like any other; all but draining are written to the ledger, so that they outlive a restart and everybody can
 * read them. Who may give them is for the entry point.
 */
import type { ContributorId } from "../base/bytes.ts";
import { TEXT_CHARS_MAX } from "../protocol/limits.ts";
import { decide, dropSession, record, send, setLive, type Draft } from "./draft.ts";
import { sessionOf, type CoordinatorState, type OperatorCommand, type SessionId } from "./live.ts";
import { BANS_MAX } from "./state.ts";

/** Why `command` cannot be done, in one sentence; null when it can. */
export function refusalOf({ durable, live }: CoordinatorState, command: OperatorCommand): string | null {
  switch (command.type) {
    case "pause":
      return durable.paused ? "Cannot pause: the run is paused already" : null;
    case "resume":
      return durable.paused ? null : "Cannot resume: the run is not paused";
    case "drain":
      return live.draining ? "Cannot drain: the relay is draining already" : null;
    case "ban": {
      const { length } = command.why;
      if (length < 1 || length > TEXT_CHARS_MAX) {
        return `Cannot ban: got a reason of ${length} characters, need 1 to ${TEXT_CHARS_MAX}`;
      }
      if (/^\ufeff|[\p{Cc}\p{Cs}]/u.test(command.why)) {
        return "Cannot ban: the reason contains control characters, broken ones or a byte order mark, need one line of text";
      }
      const full = durable.banned.size >= BANS_MAX && !durable.banned.has(command.contributor);
      return full ? `Cannot ban: ${BANS_MAX} devices are banned, which is the most there can be` : null;
    }
    case "unban":
      return durable.banned.has(command.contributor) ? null : "Cannot unban: this device is not banned";
    default:
      return command satisfies never;
  }
}

/** Does what can be done. */
export function operate(draft: Draft, command: OperatorCommand): void {
  if (refusalOf(draft.state, command) !== null) {
    return;
  }
  switch (command.type) {
    case "pause":
      record(draft, { type: "paused" });
      return;
    case "resume":
      record(draft, { type: "resumed" });
      return;
    case "drain":
      setLive(draft, { draining: true });
      return;
    case "ban":
      record(draft, { type: "banned", contributor: command.contributor, why: command.why });
      exclude(draft, command.contributor, command.why);
      return;
    case "unban":
      record(draft, { type: "unbanned", contributor: command.contributor });
      return;
    default:
      command satisfies never;
  }
}

/** Refuses what a device has sent and nobody has judged yet, and ends its session. What was accepted stays. */
function exclude(draft: Draft, contributor: ContributorId, why: string): void {
  for (const { id, header, verdict } of draft.state.durable.contributions.values()) {
    if (header.contributor === contributor && verdict === null) {
      decide(draft, id, { verdict: { type: "refused", reason: "banned" }, by: "relay", losses: null });
    }
  }
  const session = sessionOf(draft.state.live, contributor);
  if (session !== undefined) {
    turnAway(draft, session.id, why);
    dropSession(draft, session);
  }
  setLive(draft, { absent: draft.state.live.absent.delete(contributor) });
}

/** Tells a banned device why, and ends its session. */
export function turnAway(draft: Draft, session: SessionId, why: string): void {
  send(draft, session, { type: "banned", why });
  draft.effects.push({ type: "disconnect", session, reason: "The operator has excluded this device" });
}
