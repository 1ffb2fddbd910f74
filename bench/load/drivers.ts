/** Driver processes as their parent sees them: orders go out, what they saw comes back. A fault that one tells of is thrown by the next order. */
import { fork, type ChildProcess } from "node:child_process";
import { join } from "node:path";
import { HeddleError } from "../../src/base/assert.ts";
import type { Answer, Order } from "./driver.ts";

export type Seen = Extract<Answer, { readonly type: "seen" }>;

export interface Driver {
  /** Resolves with the answer; rejects when the driver has ended or told of a fault. */
  ask(order: Order): Promise<Answer>;
  stop(): Promise<void>;
}

const FLAGS = ["--experimental-import-text", "--disable-warning=ExperimentalWarning"];

export function startDriver(): Driver {
  const child: ChildProcess = fork(join(import.meta.dirname, "driver.ts"), [], { execArgv: FLAGS });
  let waiting: PromiseWithResolvers<Answer> | null = null;
  let broken: HeddleError | null = null;
  const breaks = (sentence: string): void => {
    broken ??= new HeddleError("unreachable", `The load could not be driven: ${sentence}`);
    waiting?.reject(broken);
  };
  child.on("message", (said: Answer) => {
    if (said.type === "fault") {
      breaks(said.sentence);
    } else {
      waiting?.resolve(said);
    }
  });
  const exited = new Promise<void>((settle) => {
    child.once("exit", (code) => {
      breaks(`a driver ended (${code})`);
      settle();
    });
  });
  return {
    ask: async (order) => {
      if (broken !== null) {
        throw broken;
      }
      waiting = Promise.withResolvers<Answer>();
      child.send(order);
      return waiting.promise;
    },
    stop: async () => {
      child.kill("SIGKILL");
      await exited;
    },
  };
}

/** What several drivers saw, as one. */
export async function lookAt(drivers: readonly Driver[]): Promise<Seen[]> {
  const answers = await Promise.all(drivers.map((driver) => driver.ask({ type: "look" })));
  return answers.filter((answer): answer is Seen => answer.type === "seen");
}
