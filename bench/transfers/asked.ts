/** Processes that answer questions over IPC, each by its number: how a benchmark has others do something and tell what came of it. */
import { fork } from "node:child_process";
import { join } from "node:path";
import process from "node:process";

export interface Asked<Q, A> {
  /** Rejects when the process has ended before it answered. */
  ask(question: Q): Promise<A>;
  stop(): Promise<void>;
}

/** Starts a file of this folder that calls `answerAll`. */
export function startAsked<Q, A>(name: string, args: readonly (string | number)[]): Asked<Q, A> {
  const child = fork(join(import.meta.dirname, name), args.map(String));
  const waiting = new Map<number, PromiseWithResolvers<A>>();
  let asked = 0;
  child.on("message", ({ id, answer }: { readonly id: number; readonly answer: A }) => {
    waiting.get(id)?.resolve(answer);
    waiting.delete(id);
  });
  const exited = new Promise<void>((settle) => {
    child.once("exit", (code) => {
      waiting.forEach(({ reject }) => reject(new Error(`"${name}" ended (${code}) and had not answered`)));
      settle();
    });
  });
  return {
    ask: (question) => {
      asked += 1;
      const answer = Promise.withResolvers<A>();
      waiting.set(asked, answer);
      child.send({ id: asked, question });
      return answer.promise;
    },
    stop: async () => {
      child.kill();
      await exited;
    },
  };
}

/** Answers whoever started this process, until that ends. */
export function answerAll<Q, A>(answer: (question: Q) => Promise<A>): void {
  process.on("message", ({ id, question }: { readonly id: number; readonly question: Q }) => {
    void answer(question).then((said) => process.send?.({ id, answer: said }));
  });
  process.on("disconnect", () => process.exit(0));
}
