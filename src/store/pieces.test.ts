import { expect, test } from "vitest";
import type { Bytes } from "../base/bytes.ts";
import type { JetStream, Message } from "./jetstream.ts";
import { Pieces } from "./pieces.ts";

/** Two readers of one stream, and what they have asked for. */
function placeOf() {
  const messages = new Map<string, Bytes>();
  const asked: string[] = [];
  const last = async (_action: string, _stream: string, subject: string) => {
    asked.push(subject.replace(/.*\./, ""));
    const payload = messages.get(subject);
    return payload === undefined ? undefined : { payload };
  };
  const readerOf = (payloadBytesMax: number): Pieces => {
    const jetStream = {
      payloadBytesMax,
      write: async (_: string, { subject, payload }: Message) => messages.set(subject, payload),
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
  return { readerOf, asked };
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
