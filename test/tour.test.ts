/**
 * A tour of Heddle: one contribution from its assignment to the public page. Read this test first.
 *
 * A relay and a contributor run in this process, with their production code: only the link is memory, the clock virtual and
 * the engine the twin, which computes in plain TypeScript loops. They go through one round. Then we walk the same way by
 * hand, one hop a test and one function a hop, and find at every hop the very bytes that crossed the link.
 *
 * Assignment → Params → Batch → LocalRun → Delta → PackedUpdate → Contribution → Frame[] → Verdict → Merge → BaseVersion →
 * Event → projection → page.
 */
import { beforeAll, expect, test } from "vitest";
import { bytesToFloats, digestOf, floatBytes, type Bytes } from "../src/base/bytes.ts";
import { batchAt } from "../src/data/batch.ts";
import { parameterLayout } from "../src/model/layout.ts";
import { createTrainer } from "../src/model/trainer.ts";
import { createAssembler, dataFrame, readFrame } from "../src/net/frames.ts";
import { verifyChain } from "../src/protocol/chain.ts";
import { contributionIdOf, decodeContributorMessage, decodeHeader } from "../src/protocol/codec.ts";
import type { ContributionHeader, TrainAssignment, VersionInfo } from "../src/protocol/messages.ts";
import { verdictSentence } from "../src/protocol/verdict.ts";
import { createTwin } from "../src/tensor/twin.ts";
import { deltaOf, updateNorm } from "../src/update/delta.ts";
import { accumulate, createResidual } from "../src/update/feedback.ts";
import { createServerState, outerAt } from "../src/update/outer.ts";
import { soloCrew } from "../src/update/solo.ts";
import { stepOver } from "../src/update/step.ts";
import { packUpdate } from "../src/update/pack.ts";
import { unpackUpdate, type SparseUpdate } from "../src/update/unpack.ts";
import { loadMergeKernel } from "../src/wasm/merge.ts";
import { firstOf, littleCharter, nameOf, startLittleRun, type LittleRun } from "./fixtures/little-run.ts";

const charter = littleCharter();
let run: LittleRun;

// What each hop hands to the next.
let assignment: TrainAssignment;
let base: Float32Array<ArrayBuffer>; // [P]
let after: Float32Array<ArrayBuffer>; // [P]
let delta: Float32Array | Float64Array; // [P]
let payload: Bytes;
let header: ContributionHeader;
let update: SparseUpdate;
let head: VersionInfo;

beforeAll(async () => {
  run = await startLittleRun(charter);
  run.contributor.start();
  await run.until(() => run.host.head().version === 1 && run.contributor.view().version === 1);
});

test("1. the session: a key is proven, the charter and the head come back", () => {
  expect(run.up.slice(0, 3).map(({ message }) => message.type)).toEqual(["hello", "prove", "ready"]);
  expect(run.down.slice(0, 3).map((message) => message.type)).toEqual(["challenge", "welcome", "assign"]);
  expect(firstOf(run.down, "welcome")).toMatchObject({ charter, contributor: nameOf(run), head: { version: 0 } });
});

test("2. the assignment says what to train: base, seed, at most so many steps and milliseconds", () => {
  assignment = firstOf(run.down, "assign").assignment as TrainAssignment;
  expect(assignment).toMatchObject({ type: "train", round: 1, baseVersion: 0, stepsMax: charter.round.stepsMax });
});

test("3. the base is bytes with a digest: the parameters of the whole model in one flat array", async () => {
  base = bytesToFloats((await run.store.blobs.get(assignment.baseDigest)) as Bytes);
  expect(digestOf(floatBytes(base))).toBe(assignment.baseDigest);
  expect(base.length).toBe(parameterLayout(charter.model).size);
});

test("4. a batch follows from the assignment alone, so whoever has the text can derive it", () => {
  const { batch } = charter.inner;
  const { time } = charter.model;
  const place = { seed: assignment.seed, round: 1, contributor: nameOf(run), step: 0, batch, time };
  const { tokens, targets } = batchAt(run.corpus, place); // [B·T] each
  expect(tokens.length).toBe(batch * time);
  expect(targets.slice(0, time - 1)).toEqual(tokens.slice(1, time)); // the next byte is to be predicted
});

test("5. training is a few AdamW steps on such batches", async () => {
  const trainer = await createTrainer(createTwin(), { model: charter.model, inner: charter.inner });
  trainer.load(base);
  const losses: number[] = [];
  for (let step = 0; step < assignment.stepsMax; step += 1) {
    const place = { seed: assignment.seed, round: 1, contributor: nameOf(run), step };
    const batch = batchAt(run.corpus, { ...place, batch: charter.inner.batch, time: charter.model.time });
    losses.push((await trainer.step(batch)).loss);
  }
  after = await trainer.parameters();
  expect(losses.length).toBe(charter.round.stepsMax);
  expect(losses.every((loss) => loss > 0 && loss < 2 * Math.log(256))).toBe(true);
});

test("6. the delta is what training changed, and goes into the residual, from which unsent parts are not lost", () => {
  delta = deltaOf(base, after, charter.uplink.bits);
  const residual = createResidual(base.length, charter.uplink.bits);
  accumulate(residual, delta, charter.uplink.beta);
  expect(residual).toEqual(delta); // the first round: nothing was left over before
});

test("7. packing keeps the largest entries at two bits each, so many as the assignment says: a few per cent of the bytes", () => {
  payload = packUpdate(delta, { ...charter.uplink, keep: assignment.keep });
  expect(payload.length).toBeLessThan(base.byteLength / 15);
  const read = unpackUpdate(payload, { parameters: base.length, keepMax: assignment.keep });
  expect(read.ok).toBe(true);
  update = read.ok ? read.value : update;
});

test("8. the contribution is a signed header and that payload; ours is, to the byte, the one that was sent", async () => {
  const sent = firstOf(
    run.up.map(({ message }) => message),
    "contribute",
  );
  const read = decodeHeader(sent.header);
  expect(read.ok).toBe(true);
  header = read.ok ? read.value : header;
  expect(header.payload).toEqual({ digest: digestOf(payload), bytes: payload.length });
  expect(new Uint8Array(sent.payload)).toEqual(payload);
  expect(await run.verify(run.key.publicKey, "contribution", sent.header, sent.signature)).toBe(true);
});

test("9. on a real lane the message travels in frames of at most 64 KiB", () => {
  const { bytes } = run.up.find(({ message }) => message.type === "contribute") as LittleRun["up"][number];
  const assembler = createAssembler({ messageBytesMax: 1_000_000 });
  const frame = readFrame(dataFrame(1, bytes, 0)); // this small model needs one
  const whole = frame.type === "data" ? assembler.push(frame) : frame;
  expect(whole).toEqual({ type: "message", bytes });
  expect(decodeContributorMessage(bytes).ok).toBe(true);
});

test("10. the verdict comes after somebody measured the loss with and without the update", () => {
  const { contribution, verdict } = firstOf(run.down, "verdict");
  expect(contribution).toBe(
    contributionIdOf(
      firstOf(
        run.up.map(({ message }) => message),
        "contribute",
      ).header,
    ),
  );
  expect(verdict).toEqual({ type: "accepted" });
});

test("11. the merge is the mean of what was accepted, and one outer step; it gives the next version", async () => {
  const { length: bytes } = payload;
  const ours = { id: "ours", weight: header.tokens, norm: updateNorm(update), bytes, read: async () => payload };
  const crew = soloCrew(await loadMergeKernel())();
  const before = { params: base, server: createServerState(base.length) };
  const settings = { outer: outerAt(charter, 1), downlink: charter.downlink };
  const step = await stepOver(crew, before, [ours], settings);
  head = run.host.head();
  expect(digestOf(step.broadcast)).toBe(head.update?.digest);
  expect(digestOf(floatBytes(step.base.params))).toBe(head.digest);
});

test("12. the contributor follows by that one packed update and holds the same bits", () => {
  expect(digestOf(floatBytes(new Float32Array(run.contributor.parameters() as Float32Array)))).toBe(head.digest);
});

test("13. the ledger has it all, signed and chained, so anyone can replay the run", async () => {
  const entries = await run.store.log.read(0, await run.store.log.length());
  const chain = await verifyChain(entries, { verify: run.verify });
  expect(chain.ok).toBe(true);
  const types = chain.ok ? chain.value.entries.map(({ event }) => event.type) : [];
  const round = ["started", "introduced", "opened", "contributed", "closed", "judged", "merged"];
  expect(types.slice(0, round.length)).toEqual(round);
});

test("14. the page shows projections of that: the relay's public record and the person's own view", () => {
  expect(run.host.view().versions[1]).toMatchObject({ version: 1, digest: head.digest, accepted: 1, refused: 0 });
  const own = run.contributor.view();
  expect(own.accepted).toBe(1);
  expect(own.contributions.at(-1)?.sentence).toBe(verdictSentence({ type: "accepted" }));
});
