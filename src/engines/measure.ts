/**
 * How fast an engine runs a piece of work: the run's own training Program, repeated for a fraction of a second. The clock
 * comes in as an argument.
 */
import { HeddleError } from "../base/assert.ts";
import { atOnce, type InTurn } from "../base/turn.ts";
import type { Engine } from "../tensor/engine.ts";
import { elementCount, type Program } from "../tensor/program.ts";

/** Time spent on measuring one engine, after the first run, which compiles and warms up. */
const MEASURE_MS = 300;
const RUNS_MAX = 50;

export interface MeasureOptions {
  readonly program: Program;
  /** The same work in less memory, where the engine has no room for `program`: what a trainer would do "as needed". */
  readonly instead?: Program;
  /** Read after each run, as whoever trains reads the loss. */
  readonly output: string;
  readonly nowMs: () => number;
  /** Runs and times the compiled Program when nothing else computes. */
  readonly inTurn?: InTurn;
}

/**
 * Runs per second of `program`, whose inputs stay zero. Its states are zero afterwards, as on a new engine. Throws
 * HeddleError "model-too-big" or "device-lost" as the engine does.
 */
export async function measureProgram(
  engine: Engine,
  { program, instead, output, nowMs, inTurn = atOnce }: MeasureOptions,
): Promise<number> {
  const plan = await engine.compile(program).catch((error: unknown) => {
    if (instead !== undefined && error instanceof HeddleError && error.code === "model-too-big") {
      return engine.compile(instead);
    }
    throw error;
  });
  try {
    return await inTurn(async () => {
      await plan.run([output]);
      const startMs = nowMs();
      let runs = 0;
      while (runs < RUNS_MAX && (runs === 0 || nowMs() - startMs < MEASURE_MS)) {
        await plan.run([output]);
        runs += 1;
      }
      return (runs * 1_000) / Math.max(0.001, nowMs() - startMs);
    });
  } finally {
    for (const { name, shape, role, view } of program.tensors) {
      if (role === "state" && view === undefined) {
        engine.writeState(name, new Float32Array(elementCount(shape)));
      }
    }
    plan[Symbol.dispose]();
  }
}
