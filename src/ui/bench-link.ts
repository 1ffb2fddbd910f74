/** The benchmark page's end of its worker: one worker for one course, gone when the course is over. */
import type { CourseEvent, Length } from "../engines/course.ts";

export type BenchOrder = { readonly type: "start"; readonly length: Length } | { readonly type: "stop" };

export interface BenchLink {
  /** Ends the course at the next chance; its "end" still comes. */
  stop(): void;
}

export function openBench(length: Length, tell: (event: CourseEvent) => void): BenchLink {
  const worker = new Worker(new URL("../../worker/bench.ts", import.meta.url), { type: "module" });
  const send = (order: BenchOrder): void => worker.postMessage(order);
  worker.addEventListener("message", ({ data }: MessageEvent<CourseEvent>) => {
    tell(data);
    if (data.type === "end") {
      worker.terminate();
    }
  });
  worker.addEventListener("error", (event) => {
    event.preventDefault();
    worker.terminate();
    tell({ type: "fault", sentence: `The benchmark's worker failed: ${event.message || "it did not start"}` });
    tell({ type: "end", stopped: true });
  });
  send({ type: "start", length });
  return { stop: () => send({ type: "stop" }) };
}
