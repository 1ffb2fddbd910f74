/**
 * What a relay says of an upload, and what its lane does: how far the contribution is that is being sent, and which pieces follow.
 */
import { PIECES_AHEAD } from "../protocol/limits.ts";
import { set, type Draft } from "./draft.ts";
import { isThere, sendingOf, type ContributorEvent, type Pending } from "./state.ts";

/** A piece may take longer than an upload may stall: on a slow line its frames count, too. */
export function takeProgress(
  draft: Draft,
  { dial, lane }: Extract<ContributorEvent, { readonly type: "carried" }>,
): void {
  const { upload } = draft.state;
  if (dial === draft.state.dial && upload?.lane === lane && !isThere(draft.state)) {
    set(draft, { upload: { ...upload, movedMs: draft.nowMs } });
  }
}

/**
 * The relay has `pieces` of the upload: the next ones follow. The same number again: what came next was damaged. Fewer than before: it has
 * lost some, since a link brings its messages in order.
 */
export function takeConfirmation(draft: Draft, id: Pending["id"], pieces: number): void {
  const { upload } = draft.state;
  const sending = sendingOf(draft.state);
  if (sending?.id !== id || upload?.id !== id) {
    return;
  }
  const again = pieces === upload.held;
  const back = upload.held !== null && pieces <= upload.held;
  const from = back ? pieces : Math.max(pieces, upload.sent);
  const to = Math.min(sending.pieces, pieces + PIECES_AHEAD);
  const movedMs = again ? upload.movedMs : draft.nowMs;
  set(draft, { upload: { ...upload, held: pieces, sent: Math.max(from, to), movedMs } });
  if (from < to) {
    draft.effects.push({ type: "pieces", id, lane: upload.lane, from, to });
  }
}
