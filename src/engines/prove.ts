/**
 * An engine that computes nothing for a device which fails the self-test. The test runs beside the first compile, so that a
 * start does not wait for both; what that compile times may wait for the verdict, which waits for no compile. A tuning that was
 * kept from an earlier start may be what is wrong, after a driver's update for one: it is barred, and the device tested once
 * more without it, before it is condemned. The engine that follows takes what was tested then, and looks for nothing else.
 */
import { HeddleError } from "../base/assert.ts";
import type { Engine } from "../tensor/engine.ts";

export interface ProveOptions {
  /** The tuning that was kept, if there is one. */
  readonly tuned: string | undefined;
  create(tuned: string | undefined): Promise<Engine>;
  /** Rejects with HeddleError "device-wrong" when the device computes wrong numbers. */
  test(tuned: string | undefined): Promise<void>;
  /** Throws the kept tuning away, and sees to it that engines made from now on do not find it again. */
  bar(): Promise<void>;
}

export interface Proved {
  /** Its `compile` rejects as `verdict` does. It is disposed of when the verdict is bad. */
  readonly engine: Engine;
  readonly verdict: Promise<void>;
}

export async function proveEngine({ tuned, create, test, bar }: ProveOptions): Promise<Proved> {
  let engine = await create(tuned);
  let disposed = false;
  const judge = async (): Promise<void> => {
    try {
      await test(tuned);
    } catch (error) {
      if (tuned === undefined || !(error instanceof HeddleError && error.code === "device-wrong")) {
        throw error;
      }
      await bar();
      await test(undefined);
      engine[Symbol.dispose]();
      engine = await create(undefined);
      if (disposed) {
        engine[Symbol.dispose]();
      }
    }
  };
  const verdict = judge();
  // Whoever compiles sees the verdict.
  verdict.catch(() => engine[Symbol.dispose]());
  const compile: Engine["compile"] = async (program) => {
    const first = engine;
    const plan = first.compile(program);
    plan.catch(() => undefined); // the verdict goes first: it says why
    await verdict;
    return first === engine ? plan : engine.compile(program);
  };
  const proved: Engine = {
    kind: engine.kind,
    device: engine.device,
    compile,
    writeState: (name, values) => engine.writeState(name, values),
    readState: (name) => engine.readState(name),
    [Symbol.dispose]: () => {
      disposed = true;
      engine[Symbol.dispose]();
    },
  };
  return { engine: proved, verdict };
}
