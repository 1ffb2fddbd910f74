/** An echo over any lane: both ends of the test that a browser's bytes arrive, and its clock. */
import { digestOf, type Bytes } from "../base/bytes.ts";
import { createRng } from "../base/rng.ts";
import { recorder } from "./contract.ts";
import type { Attach, Link } from "./link.ts";

/** What sending 5 MB there and back came to, with a small message behind it. */
export interface Echo {
  readonly same: boolean;
  /** The small message was back before the large one. */
  readonly smallFirst: boolean;
  readonly openMs: number;
  /** MB (1e6 bytes) a second, counting the bytes once: there and back takes twice that. */
  readonly mbPerSecond: number;
  /** What the other end said when it was asked to close. */
  readonly reason: string;
}

const LARGE_BYTES = 5_000_000;
/** What links must carry for it. */
export const ECHO_LIMITS = { messageBytesMax: LARGE_BYTES } as const;
const CLOSE_PLEASE = Uint8Array.of(67);

/** Sends every message back, and closes when asked to. */
export const echoAttach: Attach = (link) => ({
  message: (bytes) => {
    if (bytes.length === 1 && bytes[0] === CLOSE_PLEASE[0]) {
      link.close("As you wish");
    } else {
      link.send(bytes);
    }
  },
  closed: () => undefined,
});

export async function measureEcho(dial: (attach: Attach) => Promise<Link>): Promise<Echo> {
  const rng = createRng("echo");
  const large: Bytes = Uint8Array.from({ length: LARGE_BYTES }, () => rng.uint32() & 0xff);
  const end = recorder();
  const started = performance.now();
  const link = await dial(end.attach);
  const opened = performance.now();
  link.send(large);
  link.send(Uint8Array.of(1, 2, 3));
  const [first, second] = [await end.next(), await end.next()];
  const finished = performance.now();
  link.send(CLOSE_PLEASE);
  return {
    same: digestOf(second) === digestOf(large),
    smallFirst: first.length === 3,
    openMs: Math.round(opened - started),
    mbPerSecond: Math.round(LARGE_BYTES / 100 / (finished - opened)) / 10,
    reason: await end.closed(),
  };
}
