/** A Vitest reporter whose last line is "N passed, N failed": what a person and a machine look for first. */
export default class SummaryReporter {
  /** @param {readonly import("vitest/node").TestModule[]} modules */
  onTestRunEnd(modules, errors) {
    let passed = 0;
    let failed = errors.length;
    for (const module of modules) {
      const [passedBefore, failedBefore] = [passed, failed];
      for (const test of module.children.allTests()) {
        if (test.result().state === "passed") {
          passed += 1;
        } else {
          failed += 1; // skipped and pending tests count as failures: nothing is skipped here
        }
      }
      const empty = passed === passedBefore && failed === failedBefore;
      if (empty || (module.state() === "failed" && failed === failedBefore)) {
        failed += 1; // a file or suite that could not be collected, or holds no test
      }
    }
    process.stdout.write(`\n${passed} passed, ${failed} failed\n`);
    if (failed > 0) {
      process.exitCode = 1;
    }
  }
}
