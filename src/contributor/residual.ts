/**
 * What becomes of a device's residual (`update/feedback.ts`) from one contribution to the next: what training begins with, what a verdict
 * takes from it or gives back, and what it is while a verdict is still to come. Pages of the notebook in, residuals out.
 */
import { assert } from "../base/assert.ts";
import type { Compression } from "../protocol/charter.ts";
import type { TrainAssignment } from "../protocol/messages.ts";
import { giveBack, settle, shareLeft } from "../update/feedback.ts";
import { unpackUpdate } from "../update/unpack.ts";
import type { Page } from "./notebook.ts";
import type { Outcome } from "./state.ts";

/** Rounds since the last contribution, other than the assignment's, that passed without one. */
export function roundsMissed({ round }: Page, assignment: TrainAssignment): number {
  return Math.max(0, assignment.round - round - 1);
}

/** Where training begins that carries on, [P]: the base less the residual, as faded as that is when the next update is packed. */
export function startOf(
  base: Float32Array<ArrayBuffer>,
  page: Page,
  { assignment, uplink }: { readonly assignment: TrainAssignment; readonly uplink: Compression },
): Float32Array<ArrayBuffer> {
  const { residual } = page;
  if (residual?.length !== base.length) {
    return base;
  }
  const fade = shareLeft({ beta: uplink.beta, missed: roundsMissed(page, assignment) });
  const start = base.slice();
  for (let i = 0; i < start.length; i += 1) {
    start[i] = (start[i] as number) - fade * (residual[i] as number);
  }
  return start;
}

/** The residual after the verdict on what was packed from it. */
export function settled({ residual, signed }: Page, outcome: Outcome): Page["residual"] {
  if (residual === null || signed === null || outcome === "kept") {
    return residual;
  }
  if (outcome === "discarded") {
    return null;
  }
  const sent = unpackUpdate(signed.payload, { parameters: residual.length, keepMax: 4096 });
  if (!sent.ok) {
    return null; // this device packed it; a damaged copy cannot be taken back, so nothing is sent twice
  }
  const rest = residual.slice() as NonNullable<Page["residual"]>;
  settle(rest, sent.value);
  return rest;
}

/**
 * The page of a contributor that goes on before the verdict is here: as if its contribution were accepted, so that the next one does
 * not send the same again.
 */
export function setApart(page: Page): Page {
  const { signed, late } = page;
  if (signed === null) {
    return page;
  }
  assert(late === null, "Cannot go on: two contributions have no verdict yet");
  return { ...page, residual: settled(page, "accepted"), signed: null, late: signed };
}

/** The residual after the verdict on what was set apart: what was not accepted comes back, as faded as if it had stayed. */
export function settledLate(
  { residual, late, round }: Page,
  { beta }: Compression,
  outcome: Outcome,
): Page["residual"] {
  if (residual === null || late === null || outcome === "accepted") {
    return residual;
  }
  const sent = unpackUpdate(late.payload, { parameters: residual.length, keepMax: 4096 });
  if (outcome === "discarded" || !sent.ok) {
    return outcome === "discarded" ? null : residual;
  }
  const back = residual.slice() as NonNullable<Page["residual"]>;
  giveBack(back, sent.value, shareLeft({ beta, missed: round - late.pending.round - 1 }));
  return back;
}
