import { afterEach, expect, test, vi } from "vitest";
import { HeddleError } from "../base/assert.ts";
import { concatBytes, textBytes, type Bytes, type ContributorId } from "../base/bytes.ts";
import { loadStoredKey } from "../net/device-key-node.ts";
import { createMemoryHub } from "../store/bus-memory.ts";
import { createMemoryStore } from "../store/memory.ts";
import { answerOperators, operationsOfEdge } from "./operator-bus.ts";
import type { Operations } from "./operations.ts";
import { KEY_FILE } from "./place.ts";

const device = "ab".repeat(32) as ContributorId;
afterEach(() => vi.useRealTimers());

/** An edge that hears the leader of epoch 3, and what makes a leader of which every operation but these fails the test. */
async function edgeOf(known: Partial<Operations>) {
  const hub = createMemoryHub();
  const bus = hub.connect();
  const [drain, onFailure] = [vi.fn(), vi.fn()];
  const store = createMemoryStore();
  const key = await loadStoredKey(store.keys, KEY_FILE);
  const leader = () => ({ epoch: 3, name: "process 7 on b" });
  const edge = operationsOfEdge({ bus, store, dir: "", drain, leader });
  const answer = (epoch = 3) =>
    answerOperators({ bus: hub.connect(), epoch, key, operations: () => known as Operations, onFailure });
  /** Sends a question as an edge would. */
  const ask = async (question: object, signer = key): Promise<string> => {
    const bytes = textBytes(JSON.stringify({ epoch: 3, timeMs: Date.now(), body: {}, ...question }));
    const payload = concatBytes([await signer.sign("operator", bytes), bytes]);
    return new TextDecoder().decode(await bus.request("operator.3", payload, 1_000));
  };
  return { bus, drain, onFailure, store, edge, answer, ask };
}

test("an edge has the leader do what only that can, and tells why it does not", async () => {
  const [operate, prune] = [vi.fn(async () => undefined), vi.fn(async () => ({ kept: 3 }))];
  const status = async () => ({ round: 5, leader: null });
  const { edge, answer } = await edgeOf({ operate, prune, status } as unknown as Partial<Operations>);
  await answer();
  expect(await edge.status()).toEqual({ round: 5, leader: "process 7 on b" });
  await edge.operate({ type: "ban", contributor: device, why: "Noise" });
  expect(operate).toHaveBeenCalledWith({ type: "ban", contributor: device, why: "Noise" });
  expect(await edge.prune({ checkpoints: 2, dryRun: true })).toEqual({ kept: 3 });
  expect(prune).toHaveBeenCalledWith({ checkpoints: 2, dryRun: true });
  operate.mockRejectedValue(new HeddleError("bad-input", "Cannot pause: the run is paused already"));
  await expect(edge.operate({ type: "pause" })).rejects.toMatchObject({
    code: "bad-input",
    message: "Cannot pause: the run is paused already",
  });
});

test("an edge drains and reads the ledger by itself, and says who leads where that one does not answer", async () => {
  const { edge, answer, drain, store } = await edgeOf({});
  await store.log.append(0, [Uint8Array.of(1)]);
  const read: Bytes[] = [];
  for await (const entry of edge.entries()) {
    read.push(entry);
  }
  expect(read).toEqual([Uint8Array.of(1)]);
  await edge.operate({ type: "drain" });
  expect(drain).toHaveBeenCalledOnce();
  await answer(2); // a leader of before, which does not know yet
  const sentence = "Cannot operate: the relay that leads the run, process 7 on b, does not answer;";
  await expect(edge.status()).rejects.toMatchObject({
    code: "unreachable",
    message: `${sentence} ask again in a moment`,
  });
  await expect(edge.operate({ type: "pause" })).rejects.toMatchObject({
    code: "unreachable",
    message: `${sentence} what was asked may still be under way: look at the status first`,
  });
});

test("an edge does not wait long for a leader that stands still, but where much is to be done", async () => {
  const never = () => new Promise<never>(() => undefined);
  const { edge, answer } = await edgeOf({ status: never, operate: never, prune: never });
  await answer();
  vi.useFakeTimers({ toFake: ["setTimeout"] });
  const failed: string[] = [];
  const late = [edge.status(), edge.operate({ type: "pause" }), edge.prune({ checkpoints: 1, dryRun: false })].map(
    (asked, i) => asked.catch(() => failed.push(["status", "operate", "prune"][i] as string)),
  );
  await vi.waitUntil(() => vi.getTimerCount() === 3);
  await vi.advanceTimersByTimeAsync(10_000);
  expect(failed).toEqual(["status", "operate"]);
  await vi.advanceTimersByTimeAsync(110_000);
  await Promise.all(late);
  expect(failed).toEqual(["status", "operate", "prune"]);
});

test("the leader does nothing for who has not the run's key, or repeats what an edge has asked", async () => {
  const operate = vi.fn(async () => undefined);
  const { bus, answer, ask } = await edgeOf({ operate });
  await answer();
  const pause = { asked: "POST /operate", body: { type: "pause" } };
  const other = await loadStoredKey(createMemoryStore().keys, KEY_FILE);
  const bare = async (text: string): Promise<string> =>
    new TextDecoder().decode(await bus.request("operator.3", textBytes(text), 1_000));
  for (const unsigned of [await ask(pause, other), await bare("null"), await bare("")]) {
    expect(unsigned).toContain("not signed with the run's key");
  }
  const before = { ...pause, timeMs: Date.now() - 1_000 };
  expect(await ask(before)).toBe('{"value":{}}');
  expect(operate).toHaveBeenCalledOnce();
  for (const kept of [
    before,
    { ...pause, epoch: 2 },
    { ...pause, timeMs: Date.now() - 61_000 },
    { ...pause, timeMs: null },
  ]) {
    expect(await ask(kept)).toContain("the question is not of this moment");
  }
  expect(operate).toHaveBeenCalledOnce();
});

test("the leader refuses what is no request of an edge, and what is too much for the bus", async () => {
  const backUp = vi.fn();
  const operate = vi.fn();
  const status = async () => ({ long: "x".repeat(2_000_000) });
  const { edge, answer, ask } = await edgeOf({ backUp, operate, status } as unknown as Partial<Operations>);
  await answer();
  const unknown = JSON.stringify({ code: "bad-input", error: "Cannot operate: the leader does not know how" });
  expect(await ask({ asked: "POST /backup", body: { to: "/" } })).toBe(unknown);
  expect(await ask({ asked: "POST /operate", body: { type: "drain" } })).toBe(unknown);
  expect(await ask({ asked: [] })).toBe(unknown);
  expect(await ask({ asked: "POST /prune", body: { checkpoints: -1 } })).toContain("need a number of checkpoints");
  expect([backUp.mock.calls, operate.mock.calls]).toEqual([[], []]);
  await expect(edge.status()).rejects.toMatchObject({ code: "limit" });
});

test("the leader answers also where something fails that nobody foresaw, and says so where it is", async () => {
  const status = () => Promise.reject(new TypeError("That is no run"));
  const { edge, answer, onFailure } = await edgeOf({ status });
  await answer();
  await expect(edge.status()).rejects.toMatchObject({
    code: "unreachable",
    message: "The relay that leads the run could not answer: That is no run",
  });
  expect(onFailure).toHaveBeenCalledExactlyOnceWith("That is no run");
});
