/**
 * Gradients the slow way: central differences of a Program's loss in double precision, to compare `grad.ts` with. The error
 * of one difference is about h²·f‴/6 + ε·f/h, that is 1e-10 for h = 1e-5 and losses and curvatures near 1.
 */
import { present } from "../base/assert.ts";
import { tensorNamed, writesOf, type Program } from "./program.ts";
import { evaluate } from "./twin.ts";

export interface Disagreement {
  readonly at: number;
  readonly derived: number;
  readonly measured: number;
}

/** Values of a Program's inputs and states by name. */
export type Given = Readonly<Record<string, ArrayLike<number>>>;

/**
 * Runs `program`, which ends in `grad`, and compares every element of state "grads" with the central difference of "loss"
 * over the same element of state "params". Returns the elements that differ by more than 1e-9 + 1e-6 · their size.
 */
export function disagreements(
  program: Program,
  given: Given,
  { h = 1e-5 }: { readonly h?: number } = {},
): Disagreement[] {
  const grads = present(evaluate(program, given).get("grads"), "grads");
  const forward = forwardOf(program);
  const params = Float64Array.from(present(given["params"], "params"));
  const lossWith = (at: number, value: number): number => {
    const moved = params.slice();
    moved[at] = value;
    return present(evaluate(forward, { ...given, params: moved }).get("loss")?.[0], "loss");
  };
  const found: Disagreement[] = [];
  for (let at = 0; at < params.length; at += 1) {
    const [here, derived] = [params[at] as number, grads[at] as number];
    const measured = (lossWith(at, here + h) - lossWith(at, here - h)) / (2 * h);
    if (!(Math.abs(measured - derived) <= 1e-9 + 1e-6 * Math.max(Math.abs(measured), Math.abs(derived)))) {
      found.push({ at, derived, measured });
    }
  }
  return found;
}

/** The ops up to the loss: all that a difference needs. */
function forwardOf(program: Program): Program {
  const loss = tensorNamed(program, "loss").id;
  const last = program.ops.findLastIndex((op) => writesOf(op).includes(loss));
  return { ...program, ops: program.ops.slice(0, last + 1) };
}
