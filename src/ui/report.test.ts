import { expect, test } from "vitest";
import type { CourseEvent } from "../engines/course.ts";
import { emptyReport, extend, toMarkdown } from "./report.ts";

const gpu = { description: "acme x1", identity: "acme x1", software: false, features: ["subgroups"], limits: {} };
const measured = { type: "measured", spread: 0.02 } as const;
const EVENTS: readonly CourseEvent[] = [
  { type: "gpu", gpu, sentence: "" },
  { type: "wasm", device: "WASM SIMD, 2 threads" },
  { type: "progress", sentence: "Measuring", done: 0, total: 3 },
  { type: "peak", peak: { loopGflops: 500, unrolledGflops: 2_000 } },
  { type: "reading", reading: { work: "matmul", rung: "tiled", rate: 900, ...measured } },
  { type: "reading", reading: { work: "matmul", rung: "naive", type: "wrong", detail: "element 0 is 1, should be 2" } },
  { type: "reading", reading: { work: "matmul", rung: "wasm", rate: 30.04, ...measured } },
  { type: "reading", reading: { work: "training step", rung: "webgpu", rate: 51_234.5, ...measured } },
  { type: "fault", sentence: "The GPU went away" },
  { type: "end", stopped: true },
];

test("toMarkdown() of a report tells device, peak, shares of it, what was wrong, and that it was stopped", () => {
  const empty = emptyReport({ heddle: "0.1.0", time: "2026-11-22T00:00:00Z", browser: "Browser 1" });
  const report = { ...EVENTS.reduce(extend, empty), gpuName: "X1 Pro", nominalGflops: 4_000 };
  expect(JSON.parse(JSON.stringify(report))).toEqual(report);
  expect(toMarkdown(report)).toBe(`### Heddle 0.1.0 on X1 Pro, acme x1

- 2026-11-22T00:00:00Z; Browser 1
- features: subgroups
- multiply-add loop: 2000 GFLOP/s unrolled (the peak below), 500 as written
- nominal peak, as the visitor says: 4000 GFLOP/s (the loop reaches 50 %)
- WASM SIMD, 2 threads; stopped before the end
- fault: The GPU went away

| work | rung | rate | spread | of peak |
|---|---|---|---|---|
| matmul | tiled | 900 GFLOP/s | ±2 % | 45 % |
| matmul | naive | **WRONG**: element 0 is 1, should be 2 | | |
| matmul | wasm | 30 GFLOP/s | ±2 % |  |
| training step | webgpu | 51235 tokens/s | ±2 % |  |
`);
});
