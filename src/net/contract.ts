/**
 * What every Link does, as cases that run on each lane with both ends at hand. A case throws when the lane breaks its promise;
 * a promise that is never kept is caught by the test runner's time limit.
 */
import { assert, HeddleError } from "../base/assert.ts";
import { digestOf, type Bytes } from "../base/bytes.ts";
import { createRng } from "../base/rng.ts";
import { SMALL_BYTES_MAX, type Attach, type Link } from "./link.ts";

/** A lane whose two ends can be made at will. */
export interface LinkPlace {
  /** Connects A to B. Both are attached when this resolves. */
  connect(ends: {
    readonly attachA: Attach;
    readonly attachB: Attach;
    readonly messageBytesMax: number;
  }): Promise<{ readonly a: Link; readonly b: Link }>;
}

export interface LinkCase {
  readonly name: string;
  run(place: LinkPlace): Promise<void>;
}

export const CONTRACT_MESSAGE_BYTES_MAX = 6_000_000;
const LARGE_BYTES = 5_000_000;

export const LINK_CASES: readonly LinkCase[] = [
  {
    name: "send() keeps the order of small messages, both ways, from within attach on",
    run: async (place) => {
      const [a, b] = [recorder(), recorder()];
      const greet =
        (end: Recorder, first: number): Attach =>
        (link) => {
          link.send(numbered(first));
          return end.attach(link);
        };
      const links = await place.connect({
        attachA: greet(a, 0),
        attachB: greet(b, 0),
        messageBytesMax: CONTRACT_MESSAGE_BYTES_MAX,
      });
      for (let i = 1; i < 200; i += 1) {
        links.a.send(numbered(i));
        links.b.send(numbered(i));
      }
      for (let i = 0; i < 200; i += 1) {
        same(await a.next(), numbered(i));
        same(await b.next(), numbered(i));
      }
      links.a.close("Done");
    },
  },
  {
    name: "send() carries empty messages, one frame to the byte, one byte more, and 5 MB both ways at once",
    run: async (place) => {
      const { links, a, b } = await connect(place);
      const sizes = [0, 1, SMALL_BYTES_MAX];
      const larger = [SMALL_BYTES_MAX + 1, 2 * SMALL_BYTES_MAX, LARGE_BYTES];
      for (const size of [...sizes, ...larger]) {
        links.a.send(random(size));
        links.b.send(random(size));
      }
      for (const end of [a, b]) {
        const got = [];
        for (let i = 0; i < sizes.length + larger.length; i += 1) {
          got.push(await end.next());
        }
        // The classes may overtake each other; within one the order holds.
        const small = got.filter((bytes) => bytes.length <= SMALL_BYTES_MAX);
        const large = got.filter((bytes) => bytes.length > SMALL_BYTES_MAX);
        sizes.forEach((size, i) => same(small[i] as Bytes, random(size)));
        larger.forEach((size, i) => same(large[i] as Bytes, random(size)));
      }
      await links.a.drained();
      assert(links.a.bytesSent >= LARGE_BYTES, `Expected bytesSent to count, got ${links.a.bytesSent}`);
      assert(links.a.bytesReceived >= LARGE_BYTES, `Expected bytesReceived to count, got ${links.a.bytesReceived}`);
      links.b.close("Done");
    },
  },
  {
    name: "send() lets a small message overtake a large one",
    run: async (place) => {
      const { links, b } = await connect(place);
      links.a.send(random(LARGE_BYTES));
      links.a.send(numbered(7));
      same(await b.next(), numbered(7));
      same(await b.next(), random(LARGE_BYTES));
      links.a.close("Done");
    },
  },
  {
    name: "send() of more than the link's limit throws limit and leaves the link as it was",
    run: async (place) => {
      const { links, b } = await connect(place);
      try {
        links.a.send(new Uint8Array(CONTRACT_MESSAGE_BYTES_MAX + 1));
        assert(false, "Expected the message to be refused");
      } catch (error) {
        assert(error instanceof HeddleError && error.code === "limit", `Expected "limit", got ${String(error)}`);
      }
      links.a.send(numbered(1));
      same(await b.next(), numbered(1));
      links.a.close("Done");
    },
  },
  {
    name: "drained() waits for what is being sent, and is kept at once when there is little or the link is closed",
    run: async (place) => {
      const { links, b } = await connect(place);
      links.a.send(numbered(1));
      await links.a.drained();
      links.a.send(random(LARGE_BYTES));
      let drained = false;
      const draining = links.a.drained().then(() => {
        drained = true;
      });
      same(await b.next(), numbered(1));
      assert(!drained || b.count() > 0, "Expected drained() to wait while 5 MB are on the way");
      await draining;
      same(await b.next(), random(LARGE_BYTES));
      links.a.send(random(LARGE_BYTES));
      const waiting = links.a.drained();
      links.a.close("Done");
      await waiting;
      await links.a.drained();
    },
  },
  {
    name: "close() gives both ends the reason once, after the small messages that were sent before",
    run: async (place) => {
      const { links, a, b } = await connect(place);
      links.a.send(random(LARGE_BYTES));
      links.a.send(numbered(1));
      links.a.send(numbered(2));
      links.a.close("The round is over — goodbye");
      assert(a.reasons().length === 1, "Expected the closing end to be told before close() returns");
      links.a.close("Again");
      links.a.send(numbered(3));
      assert((await b.closed()) === "The round is over — goodbye", `Expected the reason, got "${await b.closed()}"`);
      assert((await a.closed()) === "The round is over — goodbye", "Expected the reason on the closing end, too");
      same(await b.next(), numbered(1));
      same(await b.next(), numbered(2));
      links.b.send(numbered(4));
      links.b.close("Late");
      assert(a.reasons().length + b.reasons().length === 2, "Expected each end to be told once");
      assert(a.count() + b.count() === 0, "Expected nothing to arrive after the close");
    },
  },
  {
    name: "close() from within a message handler ends the link",
    run: async (place) => {
      const a = recorder();
      const reasons = Promise.withResolvers<string>();
      const { a: link } = await place.connect({
        attachA: a.attach,
        attachB: (end) => ({ message: () => end.close("Heard enough"), closed: reasons.resolve }),
        messageBytesMax: CONTRACT_MESSAGE_BYTES_MAX,
      });
      link.send(numbered(1));
      link.send(numbered(2));
      assert((await a.closed()) === "Heard enough", `Expected the reason, got "${await a.closed()}"`);
      assert((await reasons.promise) === "Heard enough", "Expected the reason on the closing end");
    },
  },
];

/** An end that writes down what it is told. */
export interface Recorder {
  readonly attach: Attach;
  /** The oldest message that was not asked for yet; waits for it, and rejects when the link ends before it comes. */
  next(): Promise<Bytes>;
  count(): number;
  closed(): Promise<string>;
  reasons(): readonly string[];
}

export function recorder(): Recorder {
  const messages: Bytes[] = [];
  const waiters: PromiseWithResolvers<Bytes>[] = [];
  const reasons: string[] = [];
  const closed = Promise.withResolvers<string>();
  return {
    attach: () => ({
      message: (bytes) => {
        assert(reasons.length === 0, "Expected no message after the close");
        const wake = waiters.shift();
        if (wake === undefined) {
          messages.push(bytes);
        } else {
          wake.resolve(bytes);
        }
      },
      closed: (reason) => {
        reasons.push(reason);
        waiters.splice(0).forEach((one) => one.reject(new Error(`The link ended: ${reason}`)));
        closed.resolve(reason);
      },
    }),
    next: () => {
      const bytes = messages.shift();
      if (bytes !== undefined) {
        return Promise.resolve(bytes);
      }
      if (reasons.length > 0) {
        return Promise.reject(new Error(`The link ended: ${reasons[0]}`));
      }
      const waiter = Promise.withResolvers<Bytes>();
      waiters.push(waiter);
      return waiter.promise;
    },
    count: () => messages.length,
    closed: () => closed.promise,
    reasons: () => reasons,
  };
}

async function connect(
  place: LinkPlace,
): Promise<{ links: { readonly a: Link; readonly b: Link }; a: Recorder; b: Recorder }> {
  const [a, b] = [recorder(), recorder()];
  const messageBytesMax = CONTRACT_MESSAGE_BYTES_MAX;
  return { links: await place.connect({ attachA: a.attach, attachB: b.attach, messageBytesMax }), a, b };
}

function numbered(i: number): Bytes {
  return Uint8Array.of(i & 0xff, i >> 8, 42);
}

const randoms = new Map<number, Bytes>();

/** The same bytes for the same length. */
function random(length: number): Bytes {
  const known = randoms.get(length);
  if (known !== undefined) {
    return known;
  }
  const rng = createRng("link contract", length);
  const bytes = Uint8Array.from({ length }, () => rng.uint32() & 0xff);
  randoms.set(length, bytes);
  return bytes;
}

function same(got: Bytes, expected: Bytes): void {
  assert(got.length === expected.length, `Expected a message of ${expected.length} bytes, got ${got.length}`);
  assert(digestOf(got) === digestOf(expected), `Expected the ${expected.length} bytes that were sent`);
}
