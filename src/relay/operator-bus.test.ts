import { expect, test, vi } from "vitest";
import { HeddleError } from "../base/assert.ts";
import type { ContributorId } from "../base/bytes.ts";
import { createMemoryHub } from "../store/bus-memory.ts";
import { createMemoryStore } from "../store/memory.ts";
import { answerOperators, operationsOfEdge } from "./operator-bus.ts";
import type { Operations } from "./operations.ts";

const device = "ab".repeat(32) as ContributorId;

/** An edge, and a leader of which every operation but these fails the test. */
function edgeOf(known: Partial<Operations>) {
  const hub = createMemoryHub();
  const drain = vi.fn();
  const store = createMemoryStore();
  const edge = operationsOfEdge({ bus: hub.connect(), store, dir: "", drain, leader: () => "process 7 on b" });
  return { hub, drain, store, edge, answer: () => answerOperators(hub.connect(), () => known as Operations) };
}

test("an edge has the leader do what only that can, and tells why it does not", async () => {
  const [operate, prune] = [vi.fn(async () => undefined), vi.fn(async () => ({ kept: 3 }))];
  const status = async () => ({ round: 5, leader: null });
  const { edge, answer } = edgeOf({ operate, prune, status } as unknown as Partial<Operations>);
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
  const { edge, drain, store } = edgeOf({});
  await store.log.append(0, [Uint8Array.of(1)]);
  for await (const entry of edge.entries()) {
    expect(entry).toEqual(Uint8Array.of(1));
  }
  await edge.operate({ type: "drain" });
  expect(drain).toHaveBeenCalledOnce();
  for (const asked of [edge.status(), edge.operate({ type: "pause" })]) {
    await expect(asked).rejects.toMatchObject({
      code: "unreachable",
      message: "Cannot operate: the relay that leads the run, process 7 on b, does not answer; ask again in a moment",
    });
  }
});

test("the leader refuses what is no request of an edge, and what is too much for the bus", async () => {
  const backUp = vi.fn();
  const status = async () => ({ long: "x".repeat(2_000_000) });
  const { hub, edge, answer } = edgeOf({ backUp, status } as unknown as Partial<Operations>);
  await answer();
  const ask = async (text: string): Promise<string> =>
    new TextDecoder().decode(await hub.connect().request("operator", new TextEncoder().encode(text), 1_000));
  const unknown = JSON.stringify({ code: "bad-input", error: "Cannot operate: the leader does not know how" });
  expect(await ask('{"asked":"POST /backup","body":{"to":"/"}}')).toBe(unknown);
  expect(await ask('{"asked":[]}')).toBe(unknown);
  expect(await ask('{"asked":"POST /prune","body":{"checkpoints":-1}}')).toContain("need a number of checkpoints");
  expect(await ask('{"asked":"POST /operate"}')).toContain("need JSON");
  await expect(ask("null")).rejects.toMatchObject({ code: "unreachable" });
  expect(backUp).not.toHaveBeenCalled();
  await expect(edge.status()).rejects.toMatchObject({ code: "limit" });
});
