import { expect, test } from "vitest";
import type { JetStream, Message } from "./jetstream.ts";
import { Pieces } from "./pieces.ts";

/** Two readers of one stream, and what they have asked for. */
function placeOf() {
  const messages = new Map<string, Message>();
  const asked: string[] = [];
  const last = async (_action: string, _stream: string, subject: string) => {
    asked.push(subject.replace(/.*\./, ""));
    const message = messages.get(subject);
    return message && { ...message, header: (name: string) => message.headers?.[name] ?? "" };
  };
  const readerOf = (payloadBytesMax: number): Pieces => {
    const jetStream = {
      payloadBytesMax,
      write: async (_: string, message: Message) => messages.set(message.subject, message),
      remove: async () => messages.clear(),
      last,
      fixed: (action: string, stream: string, { last_by_subj: subject }: { readonly last_by_subj: string }) =>
        last(action, stream, subject),
    };
    return new Pieces({
      jetStream: jetStream as unknown as JetStream,
      stream: "s",
      kind: "run.blob",
      bytesMax: 1_000,
    });
  };
  return { readerOf, asked, messages };
}

const BYTES = Uint8Array.from({ length: 10 }, (_, i) => i);

test("read() asks once for a size, and again after what it read was deleted, or put again in other pieces", async () => {
  const { readerOf, asked } = placeOf();
  const [one, other] = [readerOf(4), readerOf(3)];
  await one.put("test", "a", BYTES);
  expect(await one.size("test", "a")).toBe(10);
  expect(await one.read("test", "a", { start: 2, end: 6 })).toEqual(BYTES.subarray(2, 6));
  expect(await one.read("test", "a")).toEqual(BYTES);
  expect(asked).toEqual(["size", "0", "1", "0", "1", "2"]);
  await other.delete("test", "a");
  expect([await one.read("test", "a"), await one.read("test", "a", { start: 10 })]).toEqual([undefined, undefined]);
  await one.put("test", "a", BYTES);
  await one.read("test", "a");
  await other.delete("test", "a");
  await other.put("test", "a", BYTES);
  expect(await one.read("test", "a", { start: 5 })).toEqual(BYTES.subarray(5));
  await other.delete("test", "a");
  expect(await one.read("test", "a", { start: 10 })).toBeUndefined();
});

test("what fits one message is written and read with one, also where it was in pieces before, or is empty", async () => {
  const { readerOf, asked, messages } = placeOf();
  const [small, large] = [readerOf(4), readerOf(64)];
  await large.put("test", "a", BYTES);
  expect([...messages.keys()]).toEqual(["run.blob.a.size"]);
  for (const [start, end, expected] of [
    [0, 10, BYTES],
    [2, 6, BYTES.subarray(2, 6)],
    [5, 99, BYTES.subarray(5)],
    [10, 12, new Uint8Array()],
    [6, 2, new Uint8Array()],
  ] as const) {
    expect(await small.read("test", "a", { start, end })).toEqual(expected);
  }
  expect(asked).toEqual(Array(5).fill("size"));
  await small.put("test", "b", BYTES);
  await small.read("test", "b");
  await large.delete("test", "b");
  await large.put("test", "b", BYTES);
  expect([await small.read("test", "b"), await small.size("test", "b")]).toEqual([BYTES, 10]);
  await large.put("test", "c", new Uint8Array());
  expect([await small.read("test", "c"), await small.size("test", "c")]).toEqual([new Uint8Array(), 0]);
});

test("what is not as its size says is an error, and a size that is none as well", async () => {
  const { readerOf, messages } = placeOf();
  const pieces = readerOf(64);
  await pieces.put("test", "a", BYTES);
  const message = messages.get("run.blob.a.size") as Message;
  messages.set(message.subject, { ...message, payload: BYTES.subarray(1) });
  await expect(pieces.read("test", "a")).rejects.toThrow(
    'Cannot test: got 9 bytes with "run.blob.a.size", need 10 bytes',
  );
  for (const size of ["", "null", '{"bytes":1001,"pieceBytes":0}', '{"bytes":5,"pieceBytes":300000}', '{"bytes":-1}']) {
    messages.set(message.subject, { ...message, headers: { "Heddle-Size": size } });
    await expect(pieces.read("test", "a")).rejects.toThrow("says no size of at most 1000 bytes");
  }
});
