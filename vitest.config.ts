/**
 * Two kinds of tests: what only computes shares a process with others of its kind; what starts browsers, relays and other runtimes
 * has one of its own, and waits long enough for what its neighbour takes from it. Two files at a time; the engines on every stack,
 * which take longest and only compute, begin first and give way to what runs beside them.
 */
import { BaseSequencer, type TestSpecification } from "vitest/node";
import { defineConfig } from "vitest/config";
import { textPlugin } from "./vite.config.ts";

/** Sources whose tests open links, files and browsers. */
const OUTSIDE = ["src/net/**/*.test.ts", "src/store/**/*.test.ts"];
const LONGEST = "test/engines/engines.test.ts";
/** Computes in one process and waits for nobody. */
const NULL_ADAPTER = "test/engines/null-adapter.test.ts";

/** Begins with the engines. */
class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const [longest, others] = [true, false].map((is) =>
      files.filter(({ moduleId }) => moduleId.endsWith(LONGEST) === is),
    );
    return [...(longest ?? []), ...(await super.sort(others ?? []))];
  }
}

export default defineConfig({
  test: {
    maxWorkers: 2,
    sequence: { sequencer: LongestFirst },
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
          expect: { poll: { timeout: 15_000 } },
          hookTimeout: 120_000,
        },
      },
    ],
  },
});
