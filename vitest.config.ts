/**
 * Two kinds of tests, two files at a time: what only computes shares a process with others of its kind; what starts browsers, relays
 * and other runtimes has one of its own, and waits long enough for what its neighbour takes from it.
 */
import { defineConfig } from "vitest/config";
import { textPlugin } from "./vite.config.ts";

/** Sources whose tests open links, files and browsers. */
const OUTSIDE = ["src/net/**/*.test.ts", "src/store/**/*.test.ts"];
/** Computes in one process and waits for nobody. */
const NULL_ADAPTER = "test/engines/null-adapter.test.ts";

export default defineConfig({
  test: {
    maxWorkers: 2,
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
          // A process for each file costs half a second of one; a file that replaces globals puts them back.
          isolate: false,
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
        },
      },
    ],
  },
});
