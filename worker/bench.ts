/** The benchmark page's worker: runs the course (`engines/course.ts`) when told to, posts what happens, stops when told to. */
import { messageIn } from "../src/base/assert.ts";
import { runCourse } from "../src/engines/course.ts";
import { systemClock } from "../src/net/system-clock.ts";
import type { BenchOrder } from "../src/ui/bench-link.ts";

const signal = { aborted: false };

self.addEventListener("message", ({ data }: MessageEvent<BenchOrder>) => {
  if (data.type === "stop") {
    signal.aborted = true;
    return;
  }
  void runCourse({
    gpu: navigator.gpu ?? null,
    length: data.length,
    clock: systemClock,
    nowMs: () => performance.now(),
    signal,
    tell: (event) => self.postMessage(event),
  }).catch((error: unknown) => {
    self.postMessage({ type: "fault", sentence: messageIn(error) });
    self.postMessage({ type: "end", stopped: true });
  });
});
