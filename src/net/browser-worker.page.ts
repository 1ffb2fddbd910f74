/** The worker of `browser.page.ts`: echoes over a link that the page dials for it. */
import { ECHO_LIMITS, measureEcho } from "./echo.fixture.ts";
import { dialRtcFromWorker } from "./proxy.ts";

globalThis.onmessage = ({ data: port }: MessageEvent<MessagePort>) => {
  const exchange = (offer: string): Promise<string> =>
    new Promise((resolve) => {
      globalThis.onmessage = ({ data }: MessageEvent<string>) => resolve(data);
      globalThis.postMessage({ offer });
    });
  void measureEcho((attach) => dialRtcFromWorker(port, { exchange, attach, ...ECHO_LIMITS })).then((echo) =>
    globalThis.postMessage({ echo }),
  );
};
