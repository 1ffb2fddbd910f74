/** What every bus does, as cases. A promise that is never kept is caught by the test runner's time limit. */
import { assert, HeddleError, type ErrorCode } from "../base/assert.ts";
import type { Bytes } from "../base/bytes.ts";
import type { Bus } from "./bus.ts";

export interface BusPlace {
  /** Another end of the same bus; `queueBytesMax` as in CONTRACT_QUEUE_BYTES_MAX. */
  connect(): Promise<Bus>;
}

export interface BusCase {
  readonly name: string;
  run(place: BusPlace): Promise<void>;
}

export const CONTRACT_QUEUE_BYTES_MAX = 4_000_000;

export const BUS_CASES: readonly BusCase[] = [
  {
    name: "publish() reaches all who subscribe to that subject, in the sender's order, and nobody else",
    run: async (place) => {
      const [sender, one, other] = [await place.connect(), await place.connect(), await place.connect()];
      const [first, second, third] = [inbox(), inbox(), inbox()];
      await one.subscribe("a.b", first.take);
      await other.subscribe("a.b", second.take);
      await other.subscribe("a", third.take);
      for (let i = 0; i < 300; i += 1) {
        sender.publish("a.b", numbered(i));
      }
      sender.publish("a", numbered(7));
      for (let i = 0; i < 300; i += 1) {
        same(await first.next(), i);
        same(await second.next(), i);
      }
      same(await third.next(), 7);
      await Promise.all([sender, one, other].map((bus) => bus.close()));
    },
  },
  {
    name: "publish() carries payloadBytesMax and nothing; more throws limit and is not sent",
    run: async (place) => {
      const bus = await place.connect();
      const got = inbox();
      await bus.subscribe("a", got.take);
      throws("limit", () => bus.publish("a", new Uint8Array(bus.payloadBytesMax + 1)));
      throws("bad-input", () => bus.publish("a.*", new Uint8Array()));
      throws("bad-input", () => bus.publish("", new Uint8Array()));
      bus.publish("a", new Uint8Array(bus.payloadBytesMax));
      bus.publish("a", new Uint8Array());
      assert((await got.next()).length === bus.payloadBytesMax, "Expected the largest message");
      assert((await got.next()).length === 0, "Expected the empty message");
      await bus.close();
    },
  },
  {
    name: "subscribe() ends by the function that it resolves to, and with close()",
    run: async (place) => {
      const [bus, other] = [await place.connect(), await place.connect()];
      const [ended, goes] = [inbox(), inbox()];
      const end = await bus.subscribe("a", ended.take);
      await bus.subscribe("a", goes.take);
      end();
      other.publish("a", numbered(1));
      same(await goes.next(), 1);
      assert(ended.count() === 0, "Expected nothing after the end");
      await bus.close();
      throws("unreachable", () => bus.publish("a", numbered(2)));
      other.publish("a", numbered(3));
      await rejects("unreachable", other.request("a", numbered(4), 500));
      assert(goes.count() === 0, "Expected nothing after close()");
      await other.close();
    },
  },
  {
    name: "request() gets one reply, and is told when nobody answers, or too late",
    run: async (place) => {
      const [bus, one, other] = [await place.connect(), await place.connect(), await place.connect()];
      let asked = 0;
      const reply = async ([low = 0]: Bytes): Promise<Bytes> => {
        asked += 1;
        return numbered(low + 1);
      };
      await rejects("unreachable", bus.request("a", numbered(1), 5_000));
      await one.answer("a", reply);
      await other.answer("a", reply);
      same(await bus.request("a", numbered(1), 5_000), 2);
      assert(asked === 1, "Expected one of two to be asked");
      await one.answer("never", () => new Promise(() => undefined));
      await rejects("unreachable", bus.request("never", numbered(1), 100));
      await one.answer("fails", () => Promise.reject(new Error("no")));
      await rejects("unreachable", bus.request("fails", numbered(1), 100));
      await Promise.all([bus, one, other].map((each) => each.close()));
    },
  },
  {
    name: "neither a request nor a reply overtakes what its sender has published before",
    run: async (place) => {
      const [bus, other] = [await place.connect(), await place.connect()];
      const [here, there] = [inbox(), inbox()];
      await bus.subscribe("here", here.take);
      await other.subscribe("there", there.take);
      await other.answer("a", async (question) => {
        assert(there.count() === 3, `Expected three messages before the question, got ${there.count()}`);
        [1, 2, 3].forEach((i) => other.publish("here", numbered(i)));
        return question;
      });
      [1, 2, 3].forEach((i) => bus.publish("there", numbered(i)));
      same(await bus.request("a", numbered(4), 5_000), 4);
      assert(here.count() === 3, `Expected three messages before the reply, got ${here.count()}`);
      await Promise.all([bus.close(), other.close()]);
    },
  },
  {
    name: "publish() faster than the bus can send has a bound, which is told, and the bus goes on afterwards",
    run: async (place) => {
      const [bus, other] = [await place.connect(), await place.connect()];
      const got = inbox();
      await other.subscribe("a", got.take);
      const reasons: string[] = [];
      const end = bus.onInterrupt((reason) => reasons.push(reason));
      const payload = new Uint8Array(100_000);
      let sent = 0;
      try {
        for (; sent < 100; sent += 1) {
          bus.publish("a", payload);
        }
        assert(false, "Expected the queue to have a bound");
      } catch (error) {
        assert(
          error instanceof HeddleError && error.code === "unreachable",
          `Expected a refusal, got ${String(error)}`,
        );
      }
      assert(sent * payload.length <= CONTRACT_QUEUE_BYTES_MAX, `Expected the bound to hold, got ${sent} messages`);
      assert(reasons.length === 1, `Expected to be told once, got ${reasons.length} times`);
      for (let i = 0; i < sent; i += 1) {
        assert((await got.next()).length === payload.length, "Expected what was taken to arrive");
      }
      await bus.subscribe("b", () => undefined); // the bus has taken everything when this resolves
      bus.publish("a", numbered(5));
      same(await got.next(), 5);
      end();
      await Promise.all([bus.close(), other.close()]);
    },
  },
];

interface Inbox {
  readonly take: (payload: Bytes) => void;
  next(): Promise<Bytes>;
  count(): number;
}

function inbox(): Inbox {
  const messages: Bytes[] = [];
  const waiters: ((payload: Bytes) => void)[] = [];
  return {
    take: (payload) => {
      const wake = waiters.shift();
      if (wake === undefined) {
        messages.push(payload);
      } else {
        wake(payload);
      }
    },
    next: () => {
      const payload = messages.shift();
      return payload === undefined ? new Promise((resolve) => waiters.push(resolve)) : Promise.resolve(payload);
    },
    count: () => messages.length,
  };
}

function numbered(i: number): Bytes {
  return Uint8Array.of(i & 0xff, i >> 8);
}

function same(payload: Bytes, i: number): void {
  const got = (payload[0] ?? 0) + 256 * (payload[1] ?? 0);
  assert(payload.length === 2 && got === i, `Expected message ${i}, got ${got}`);
}

function throws(code: ErrorCode, call: () => void): void {
  let thrown: unknown;
  try {
    call();
  } catch (error) {
    thrown = error;
  }
  assert(thrown instanceof HeddleError && thrown.code === code, `Expected "${code}", got ${String(thrown)}`);
}

async function rejects(code: ErrorCode, call: Promise<unknown>): Promise<void> {
  const got = await call.catch((error: unknown) => error);
  assert(got instanceof HeddleError && got.code === code, `Expected "${code}", got ${String(got)}`);
}
