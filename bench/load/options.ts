/** What the command lines of benchmarks give. */
import { HeddleError } from "../../src/base/assert.ts";

/** Throws HeddleError "bad-input" for anything but a whole number from `least` to `most`; `name` is what people gave it for. */
export function readWhole(
  name: string,
  given: string | number | undefined,
  { least = 1, most = 1e6 }: { readonly least?: number; readonly most?: number } = {},
): number {
  const value = Number(given);
  if (!Number.isInteger(value) || value < least || value > most) {
    const sentence = `Cannot measure: got ${name} ${String(given)}, need a whole number from ${least} to ${most}`;
    throw new HeddleError("bad-input", sentence);
  }
  return value;
}

/** The whole numbers that are given, or the usual ones where none is. Throws as `readWhole` does. */
export function readWholes(
  name: string,
  given: readonly string[],
  { usual, ...limits }: { readonly usual: readonly number[]; readonly least?: number; readonly most?: number },
): number[] {
  return (given.length === 0 ? usual : given).map((each) => readWhole(name, each, limits));
}

/** The words that are given, or all of `known` where none is. Throws HeddleError "bad-input" for one that is not `known`; `name` is what they are. */
export function readNames<Name extends string>(name: string, given: readonly string[], known: readonly Name[]): Name[] {
  const strange = given.find((word) => !known.some((one) => one === word));
  if (strange !== undefined) {
    throw new HeddleError("bad-input", `Cannot measure: got the ${name} "${strange}", need one of ${known.join(", ")}`);
  }
  return known.filter((one) => given.length === 0 || given.includes(one));
}
