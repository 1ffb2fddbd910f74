/**
 * Two groups of tests, one after the other: what only computes runs on both cores, the null adapter's compiler among it; what
 * starts browsers, relays and other runtimes then runs file by file, so that nothing is timed out by its neighbour.
 */
import { defineConfig } from "vitest/config";
import { textPlugin } from "./vite.config.ts";

/** Sources whose tests open links, files and browsers. */
const OUTSIDE = ["src/net/**/*.test.ts", "src/store/**/*.test.ts"];
/** Computes in one process and waits for nobody. */
const NULL_ADAPTER = "test/engines/null-adapter.test.ts";

export default defineConfig({
  test: {
    reporters: ["default", "./tools/summary-reporter.mjs"],
    projects: [
      {
        plugins: [textPlugin()],
        test: {
          name: "pure",
          include: ["src/**/*.test.ts", "test/*.test.ts", "experiments/*.test.ts", NULL_ADAPTER],
          exclude: OUTSIDE,
          testTimeout: 60_000,
          hookTimeout: 120_000,
          maxWorkers: 2,
          // A process for each file costs half a second of one; a file that replaces globals puts them back.
          isolate: false,
          sequence: { groupOrder: 0 },
        },
      },
      {
        plugins: [textPlugin()],
        test: {
          name: "machines",
          include: ["test/engines/**/*.test.ts", "test/e2e/**/*.test.ts", ...OUTSIDE],
          exclude: [NULL_ADAPTER],
          testTimeout: 180_000,
          hookTimeout: 120_000,
          fileParallelism: false,
          sequence: { groupOrder: 1 },
        },
      },
    ],
  },
});
