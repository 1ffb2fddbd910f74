import { describe, expect, test } from "vitest";
import { HeddleError } from "../base/assert.ts";
import { createStop } from "../base/stop.ts";
import type { InTurn } from "../base/turn.ts";
import { BEGUN, type ChosenEngine, type OpenBeside } from "../engines/choose.ts";
import type { Moments } from "../model/trainer.ts";
import type { Losses, TrainAssignment, ValidateAssignment } from "../protocol/messages.ts";
import type { Engine } from "../tensor/engine.ts";
import type { SparseUpdate } from "../update/unpack.ts";
import { keepEngine } from "./keeper.ts";
import type { EngineInUse, Work } from "./work.ts";

const AT_FIRST = "The GPU is used: it is 3.1 times as fast as the processor here.";
const NAMED = { webgpu: "WebGPU is used, as asked.", wasm: "The processor is used, as asked." };

type Kind = "webgpu" | "wasm";

/** A work that knows its engine, keeps the moments it gets, and computes for as long as the test says. */
interface FakeWork extends Work {
  readonly engine: Engine;
}

/** Engines that only know their kind, with a record of what was opened, trained on and disposed of. */
function stage() {
  const log: string[] = [];
  const said: EngineInUse[] = [];
  let count = 0;
  const engineOf = (kind: Kind, sentence = NAMED[kind]): ChosenEngine => {
    count += 1;
    const name = `${kind} ${count}`;
    const engine = { kind, device: name, [Symbol.dispose]: () => log.push(`dispose ${name}`) };
    return { engine: engine as unknown as Engine, sentence };
  };
  const make = async (engine: Engine): Promise<FakeWork> => {
    const { device } = engine;
    let moments: Moments | null = null;
    return {
      engine,
      train: async (assignment, base, { onStep }) => {
        log.push(`train on ${device}`);
        onStep({ step: 1, tokens: 1, loss: 1 });
        await Promise.resolve();
        moments = { m: Float32Array.of(...(moments?.m ?? []), 0.1), v: base.slice(), t: (moments?.t ?? 0) + 1 };
        log.push(`trained on ${device}`);
        return { after: base.slice(), losses: [1], steps: assignment.stepsMax, tokens: 1 };
      },
      validate: async () => {
        log.push(`validate on ${device}`);
        return { before: 1, after: 1 } as unknown as Losses;
      },
      moments: async () => moments,
      restore: async (given) => {
        moments = given;
      },
      [Symbol.dispose]: () => log.push(`end work on ${device}`),
    };
  };
  return { log, said, engineOf, make, onEngine: (engine: EngineInUse) => void said.push(engine) };
}

/** A keeper that was opened on an engine to stay on. */
function scene(kind: Kind, openGpu: () => void = () => {}) {
  const { log, said, engineOf, make, onEngine } = stage();
  const keeper = keepEngine({ ...engineOf(kind, AT_FIRST), ahead: null }, async (wanted) => {
    log.push(`open ${wanted}`);
    if (wanted === "webgpu") {
      openGpu();
    }
    return engineOf(wanted);
  });
  const take = async (losses: number): Promise<EngineInUse> => {
    await keeper.use(losses, make, onEngine);
    return said.at(-1) as EngineInUse;
  };
  return { keeper, log, make, onEngine, take };
}

test("keepEngine() hands out the chosen engine first, and a new one of its kind after a loss", async () => {
  const { take, log } = scene("webgpu");
  expect((await take(0)).device).toBe("webgpu 1");
  expect(log).toEqual([]);
  expect((await take(1)).device).toBe("webgpu 2");
  expect(log).toEqual(["dispose webgpu 1", "open webgpu"]);
});

test("keepEngine() keeps saying why this kind of engine was chosen, and why it was left", async () => {
  const { take } = scene("webgpu");
  const said: string[] = [];
  for (const losses of [0, 0, 1, 2, 0, 0]) {
    said.push((await take(losses)).sentence);
  }
  const left = "The processor is used from now on: the GPU failed 2 times in a row.";
  expect(said).toEqual([AT_FIRST, AT_FIRST, AT_FIRST, left, left, left]);
});

test("keepEngine() goes to the processor when the adapter is gone, says why, and stays there", async () => {
  const { take, log } = scene("webgpu", () => {
    throw new HeddleError("no-engine", "Cannot use WebGPU: there is no WebGPU adapter here");
  });
  await take(0);
  const { kind, sentence } = await take(1);
  expect(kind).toBe("wasm");
  expect(sentence).toMatch(/processor is used from now on.*no WebGPU adapter/);
  expect((await take(1)).kind).toBe("wasm");
  expect(log.filter((line) => line === "open webgpu").length).toBe(1);
});

test("keepEngine() goes to the processor when the GPU fails twice in a row", async () => {
  const { take } = scene("webgpu");
  await take(0);
  await take(1);
  const { kind, sentence } = await take(2);
  expect([kind, sentence]).toEqual(["wasm", "The processor is used from now on: the GPU failed 2 times in a row."]);
});

test("keepEngine() makes the work on the processor where the GPU has no room for it, and passes bugs on", async () => {
  const { keeper, log, make, onEngine } = scene("webgpu");
  const picky = async (engine: Engine): Promise<FakeWork> => {
    if (engine.kind === "webgpu") {
      throw new HeddleError("model-too-big", "The model needs 3 GiB more");
    }
    return make(engine);
  };
  const made = (await keeper.use(0, picky, onEngine)) as FakeWork;
  expect(made.engine.device).toBe("wasm 2");
  expect(log).toEqual(["dispose webgpu 1", "open wasm"]);
  const bug = scene("webgpu").keeper.use(0, () => Promise.reject(new Error("a bug")), onEngine);
  await expect(bug).rejects.toThrow("a bug");
});

test("keepEngine() has nothing to fall back on from the processor", async () => {
  const { keeper, onEngine } = scene("wasm");
  const refusal = new HeddleError("model-too-big", "too big");
  await expect(keeper.use(0, () => Promise.reject(refusal), onEngine)).rejects.toBe(refusal);
});

describe("keepEngine() with a GPU ahead", () => {
  const assignment = { stepsMax: 1 } as TrainAssignment;
  const base = Float32Array.of(1, 2);
  const job = { deadlineMs: 0, signal: createStop(), onStep: () => {} };
  const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

  /** A keeper that begins on the processor; the test says when the GPU is open, and what `open` and `make` do on it. */
  function beginning(onGpu: (kind: Kind) => void = () => {}) {
    const { log, said, engineOf, make, onEngine } = stage();
    const { promise: asked, resolve: open, reject: fail } = Promise.withResolvers<Kind>();
    let beside: InTurn = () => Promise.reject(new Error("not open"));
    const ahead: OpenBeside = async (inTurn) => {
      beside = inTurn;
      log.push("open ahead");
      const kind = await asked;
      return engineOf(kind, kind === "webgpu" ? AT_FIRST : "The processor is used: it is twice as fast.");
    };
    const keeper = keepEngine({ ...engineOf("wasm", BEGUN), ahead }, async (wanted) => {
      log.push(`open ${wanted}`);
      return engineOf(wanted);
    });
    const picky = async (engine: Engine): Promise<FakeWork> => {
      onGpu(engine.kind as Kind);
      return make(engine);
    };
    const use = (losses = 0): Promise<Work> => keeper.use(losses, picky, onEngine);
    const train = (work: Work, onStep = job.onStep) => work.train(assignment, base, { ...job, onStep });
    /** A work whose first step is done, so that the GPU is being opened. */
    const begin = async (): Promise<Work> => {
      const work = await use();
      await train(work);
      log.length = 0;
      return work;
    };
    return { log, said, use, train, begin, open, fail, timed: (run: () => Promise<void>) => beside(run) };
  }

  test("trains on the processor first, and on the GPU from the first job after it is ready", async () => {
    const { log, said, use, train, open } = beginning();
    const work = await use();
    await train(work);
    open("webgpu");
    await settle();
    expect(said.map(({ kind, sentence }) => [kind, sentence])).toEqual([["wasm", BEGUN]]);
    await train(work);
    await work.validate({} as ValidateAssignment, base, {} as SparseUpdate, job);
    expect(log).toEqual([
      "train on wasm 1",
      "open ahead",
      "trained on wasm 1",
      "end work on wasm 1",
      "dispose wasm 1",
      "train on webgpu 2",
      "trained on webgpu 2",
      "validate on webgpu 2",
    ]);
    expect(said.map(({ kind, sentence }) => [kind, sentence])).toEqual([
      ["wasm", BEGUN],
      ["webgpu", AT_FIRST],
    ]);
  });

  test("does not go over within a job, though the GPU gets ready in it", async () => {
    const { log, use, train, open } = beginning();
    const work = await use();
    let inside: Promise<void> | undefined;
    await train(work, () => {
      open("webgpu");
      inside = settle();
    });
    await inside;
    expect(log).toEqual(["train on wasm 1", "open ahead", "trained on wasm 1"]);
    expect((await work.moments())?.t).toBe(1);
  });

  test("carries AdamW's moments over as they are", async () => {
    const { use, train, open, said } = beginning();
    const work = await use();
    await work.restore({ m: Float32Array.of(0.3, -1e-9), v: Float32Array.of(4e-12, 5), t: 70 });
    await train(work);
    const before = await work.moments();
    open("webgpu");
    await settle();
    await work.validate({} as ValidateAssignment, base, {} as SparseUpdate, job);
    expect(said.at(-1)?.kind).toBe("webgpu");
    expect(await work.moments()).toEqual(before);
    expect(before?.t).toBe(71);
  });

  test.each(["opening", "making"])(
    "stays on the processor when %s the GPU's work fails, and says why",
    async (what) => {
      const { log, said, use, train, begin, open, fail } = beginning((kind) => {
        if (kind === "webgpu") {
          throw new HeddleError("device-wrong", "The GPU computes wrong numbers");
        }
      });
      const work = await begin();
      if (what === "opening") {
        fail(new HeddleError("device-wrong", "The GPU computes wrong numbers"));
      } else {
        open("webgpu");
      }
      await settle();
      await train(work);
      expect(said.at(-1)).toEqual({
        kind: "wasm",
        device: "wasm 1",
        sentence: "The processor is used: the GPU cannot be used (The GPU computes wrong numbers).",
      });
      expect(log.filter((line) => line.startsWith("dispose"))).toEqual(what === "making" ? ["dispose webgpu 2"] : []);
      work[Symbol.dispose]();
      await train(await use());
      expect(log.filter((line) => line === "open ahead")).toEqual([]);
    },
  );

  test("stays on the processor when that is faster, and says by how much", async () => {
    const { log, said, train, begin, open } = beginning();
    const work = await begin();
    open("wasm");
    await settle();
    await train(work);
    expect(said.at(-1)).toEqual({
      kind: "wasm",
      device: "wasm 1",
      sentence: "The processor is used: it is twice as fast.",
    });
    expect(log).toEqual(["dispose wasm 2", "train on wasm 1", "trained on wasm 1"]);
  });

  test("opens the GPU in vain, and puts it away, when the work ends before; the next one begins again", async () => {
    const { log, said, use, train, begin, open } = beginning();
    const work = await begin();
    work[Symbol.dispose]();
    open("webgpu");
    await settle();
    expect(log).toEqual(["end work on wasm 1", "dispose webgpu 2"]);
    expect(said.length).toBe(1);
    await train(await use());
    expect(log.slice(2)).toEqual(["dispose wasm 1", "open wasm", "train on wasm 3", "open ahead", "trained on wasm 3"]);
  });

  test("puts everything away when the work ends while the GPU waits for the next job", async () => {
    const { log, begin, open } = beginning();
    const work = await begin();
    open("webgpu");
    await settle();
    work[Symbol.dispose]();
    expect(log).toEqual(["end work on wasm 1", "end work on webgpu 2", "dispose webgpu 2"]);
  });

  test("times the GPU between jobs, and not at all after the work has ended", async () => {
    const { log, train, begin, timed } = beginning();
    const work = await begin();
    const first = train(work);
    const measured = timed(async () => void log.push("measured"));
    const second = train(work);
    await Promise.all([first, measured, second]);
    const job1 = ["train on wasm 1", "trained on wasm 1"];
    expect(log).toEqual([...job1, "measured", ...job1]);
    work[Symbol.dispose]();
    await expect(timed(async () => void log.push("measured"))).rejects.toThrow("has ended");
  });

  test("begins on the processor again after a loss and after a stop, with the GPU's sentence when it is back", async () => {
    const { log, said, use, train, begin, open } = beginning();
    const work = await begin();
    open("webgpu");
    await settle();
    await train(work);
    for (const [losses, from] of [
      [1, 2],
      [0, 4],
    ] as const) {
      log.length = 0;
      const later = await use(losses);
      await train(later);
      await settle();
      await train(later);
      const [wasm, webgpu] = [`wasm ${from + 1}`, `webgpu ${from + 2}`];
      expect(log).toEqual([
        `dispose webgpu ${from}`,
        "open wasm",
        `train on ${wasm}`,
        "open webgpu",
        `trained on ${wasm}`,
        `end work on ${wasm}`,
        `dispose ${wasm}`,
        `train on ${webgpu}`,
        `trained on ${webgpu}`,
      ]);
      expect(said.slice(-2).map(({ sentence }) => sentence)).toEqual([BEGUN, AT_FIRST]);
    }
  });

  test("gives up a GPU that fails twice before it has finished any work, whatever the processor did between", async () => {
    const { said, use, train, begin, open } = beginning();
    const work = await begin();
    open("webgpu");
    await settle();
    await work.validate({} as ValidateAssignment, base, {} as SparseUpdate, job);
    const second = await use(1);
    await train(second);
    await settle();
    await second.validate({} as ValidateAssignment, base, {} as SparseUpdate, job);
    expect(said.at(-1)?.kind).toBe("webgpu");
    await use(1);
    expect([said.at(-1)?.kind, said.at(-1)?.sentence]).toEqual([
      "wasm",
      "The processor is used from now on: the GPU failed 2 times in a row.",
    ]);
  });

  test("waits for the GPU where the processor has no room for the work", async () => {
    const { said, use, open, log } = beginning((kind) => {
      if (kind === "wasm") {
        throw new HeddleError("model-too-big", "The model needs 3 GiB more");
      }
    });
    open("webgpu");
    await use();
    expect(said.at(-1)?.kind).toBe("webgpu");
    expect(log).toEqual(["dispose wasm 1", "open ahead"]);
  });
});
