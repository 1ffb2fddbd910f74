/** Entry for a browser's worker: gets the words of a command line, answers with the reports or with what was thrown. */
import { report, wantedIn } from "../entry.ts";

self.addEventListener("message", ({ data }: MessageEvent<readonly string[]>) => {
  const begin = (begun: string): void => self.postMessage({ begun });
  report(wantedIn(data), () => navigator.gpu, begin).then(
    (reports) => self.postMessage({ reports }),
    (error: unknown) =>
      self.postMessage({ thrown: error instanceof Error ? `${error}\n${error.stack}` : String(error) }),
  );
});
