/**
 * How far training drifts apart between platforms: `npm run bench:trace [-- small] [--json]` trains the sample model for
 * 200 steps on every software stack and prints the largest distance of any loss to that of WASM in Node; "sample" takes some
 * minutes a stack. WASM must end in the same bits everywhere, exact and fused each. Exits with 1 where that, or the band of
 * `trace.ts`, does not hold.
 */
import process from "node:process";
import type { Report } from "../test/engines/entry.ts";
import { stacks, type Stack } from "../test/engines/stacks.ts";
import { drift, DRIFT_MAX, type TraceName } from "../test/engines/trace.ts";

const STACK_MS_MAX = 1_800_000;
const only: TraceName = process.argv.includes("small") ? "small" : "sample";
const all = stacks({ msMax: STACK_MS_MAX, only });
const print = (line: string): void => void process.stdout.write(`${line}\n`);
let held = true;
let reference: Report | undefined;
// One after the other, so that each has the machine's threads to itself. WASM in Node is what the others are held against.
for (const stack of all.toSorted((a, b) => Number(isReference(b)) - Number(isReference(a)))) {
  const report = await stack.report();
  reference ??= report;
  const exact = reference.traces[0];
  const traces = [...report.traces, ...(report.fused === undefined ? [] : [report.fused])];
  for (const one of traces) {
    const { losses, digest } = one;
    const distance = drift(losses, exact?.losses ?? []);
    const sameBits = digest === (one === report.fused ? reference.fused : exact)?.digest;
    const good = distance <= DRIFT_MAX && (sameBits || stack.engine === "webgpu");
    held &&= good;
    const [first, last] = [losses[0], losses.at(-1)];
    print(
      process.argv.includes("--json")
        ? JSON.stringify({
            work: `trace ${only}`,
            stack: stack.name,
            device: report.device,
            fused: one === report.fused,
            first,
            last,
            distance,
            sameBits,
            held: good,
          })
        : `${stack.name}${one === report.fused ? ", fused" : ""}: loss ${first?.toFixed(4)} to ${last?.toFixed(4)}, distance ${distance.toExponential(1)}, ` +
            `${sameBits ? "same bits" : "other bits"}${good ? "" : ", NOT AS PROMISED"}`,
    );
  }
}
process.exit(held ? 0 : 1);

function isReference({ name }: Stack): boolean {
  return name === "WASM: Node";
}
