/** The control law against simulated devices: slow, fast, suddenly slow, with timers that oversleep, and a page that jerks. */
import { describe, expect, test } from "vitest";
import type { Clock } from "../base/clock.ts";
import { createRng } from "../base/rng.ts";
import { createStop } from "../base/stop.ts";
import type { PlanPace } from "../tensor/engine.ts";
import { createPace, SUBMIT_MS_MAX, type Neighbour } from "./pace.ts";

const COUNT = 100;

/** Dispatches whose cost nothing foretells. */
const quick = (count: number): number[] => Array.from({ length: count }, () => 0);

/**
 * A device and a clock of its own: dispatch i takes `cost(i)` ms, one after the other, and the host hears of a submit's end
 * `fenceMs` later; timers sleep `timerMsMin` at least. Time passes when nobody has anything to do.
 */
class Device {
  nowMs = 0;
  busyMs = 0;
  sleptMs = 0;
  submits: number[] = [];
  cost: (dispatch: number) => number;
  fence: () => number = () => 0.5;
  timerMsMin = 0;
  /** Ends of submits are heard of at multiples of this. */
  tickMs = 0.001;
  #freeMs = 0;
  #events: { readonly atMs: number; readonly happen: () => void }[] = [];
  readonly clock: Clock = {
    nowMs: () => this.nowMs,
    after: (delayMs, wake) => {
      const sleptMs = Math.max(delayMs, this.timerMsMin);
      this.sleptMs += sleptMs;
      this.#at(this.nowMs + sleptMs, wake);
      return () => {};
    },
  };
  constructor(cost: (dispatch: number) => number) {
    this.cost = cost;
  }
  #at(atMs: number, happen: () => void): void {
    this.#events.push({ atMs, happen });
    setImmediate(() => {
      this.#events.sort((one, other) => other.atMs - one.atMs);
      const next = this.#events.pop();
      this.nowMs = Math.max(this.nowMs, next?.atMs ?? 0);
      next?.happen();
    });
  }
  /** Runs a Plan of `count` dispatches as `gpu/plan.ts` does; returns the cuts. */
  run(pace: Neighbour, plan: PlanPace, count = COUNT): Promise<number[]> {
    return pace.work(() => this.#run(plan, count));
  }
  async #run(plan: PlanPace, count: number): Promise<number[]> {
    const cuts: number[] = [];
    let done = Promise.resolve();
    for (let from = 0; from < count;) {
      const to = plan.until(from);
      let tookMs = 0;
      for (let i = from; i < to; i += 1) {
        tookMs += this.cost(i);
      }
      this.#freeMs = Math.max(this.#freeMs, this.nowMs) + tookMs;
      this.busyMs += tookMs;
      const heardMs = Math.ceil((this.#freeMs + this.fence()) / this.tickMs) * this.tickMs;
      done = new Promise((resolve) => this.#at(heardMs, resolve));
      if (to > from) {
        this.submits.push(tookMs);
        cuts.push(to);
      }
      await plan.submitted(from, to, done);
      from = to;
    }
    await done; // the loss is read
    return cuts;
  }
}

async function settle(device: Device, pace: Neighbour, runs: number): Promise<number[]> {
  const plan = pace.plan(quick(COUNT));
  let cuts: number[] = [];
  for (let run = 0; run < runs; run += 1) {
    cuts = await device.run(pace, plan);
  }
  return cuts;
}

describe("createPace()", () => {
  test("probes a fast device with submits that double, then fills each with as much as its slice holds", async () => {
    const device = new Device(() => 0.02);
    const pace = createPace({ clock: device.clock, duty: () => 1 });
    const plan = pace.plan(quick(COUNT));
    expect(await device.run(pace, plan)).toEqual([1, 2, 4, 8, 16, 32, 64, 100]); // two are under way
    for (let run = 0; run < 20; run += 1) {
      await device.run(pace, plan);
    }
    expect(await device.run(pace, plan)).toEqual([100]);
    expect(pace.state()).toMatchObject({ share: 1, sliceMs: 50 });
  });

  test("has no more operations in a submit than a dispatch may have before it knows the device, though what came first was quick", async () => {
    // At 50 GFLOP/s, as on a phone.
    const flops = Array.from({ length: COUNT }, (_, i) => (i < 40 ? 1e6 : 2 ** 31));
    const device = new Device((i) => (flops[i] as number) / 50e6);
    const pace = createPace({ clock: device.clock, duty: () => 1 });
    await device.run(pace, pace.plan(flops));
    expect(Math.max(...device.submits)).toBeLessThanOrEqual(SUBMIT_MS_MAX / 2);
  });

  test("cuts a slow device's runs at its slices, the dearest dispatch alone", async () => {
    const device = new Device((i) => (i === 40 ? 120 : 9));
    const pace = createPace({ clock: device.clock, duty: () => 1 });
    await settle(device, pace, 5);
    device.submits = [];
    const cuts = await settle(device, pace, 0).then(() => device.run(pace, pace.plan(quick(COUNT))));
    expect(cuts.slice(0, 3)).toEqual([1, 2, 4]); // another Plan begins with a probe of its own
    expect(Math.max(...device.submits)).toBeLessThanOrEqual(SUBMIT_MS_MAX);
  });

  test("keeps submits within their slice at half power, and rests between them as long as they took", async () => {
    const device = new Device((i) => 0.5 + (i % 7));
    const pace = createPace({ clock: device.clock, duty: () => 0.5 });
    const plan = pace.plan(quick(COUNT));
    pace.setFrames(16);
    for (let run = 0; run < 10; run += 1) {
      await device.run(pace, plan);
    }
    device.submits = [];
    const before = [device.busyMs, device.nowMs] as const;
    await device.run(pace, plan);
    const share = (device.busyMs - before[0]) / (device.nowMs - before[1]);
    expect(share).toBeGreaterThan(0.42); // the fences cost a little
    expect(share).toBeLessThanOrEqual(0.5);
    expect(Math.max(...device.submits)).toBeLessThanOrEqual(8.5);
    expect(device.submits.length).toBeGreaterThan(40);
  });

  describe.each([0.45, 2, 5, 15, 103])("where a submit is heard of %d ms late", (fenceMs) => {
    const [dispatches, stepMs] = [84, 2.9];
    const typical = (): Device => {
      const device = new Device(() => stepMs / dispatches);
      device.fence = () => fenceMs;
      return device;
    };

    test.each([0.05, 0.2, 0.5, 1])(
      "a small step is one submit, and no rest is owed for the fence, at power %d",
      async (power) => {
        const device = typical();
        const pace = createPace({ clock: device.clock, duty: () => power });
        pace.setFrames(16.7);
        const plan = pace.plan(quick(dispatches));
        for (let run = 0; run < 20; run += 1) {
          await device.run(pace, plan, dispatches);
        }
        const before = [device.submits.length, device.nowMs, device.busyMs] as const;
        for (let run = 0; run < 20; run += 1) {
          await device.run(pace, plan, dispatches);
        }
        const [submits, tookMs, busyMs] = [
          device.submits.length - before[0],
          device.nowMs - before[1],
          device.busyMs - before[2],
        ];
        expect(submits).toBeLessThanOrEqual(20 * Math.ceil(stepMs / pace.state().sliceMs));
        expect(tookMs / 20).toBeLessThanOrEqual(1.1 * Math.max(stepMs + fenceMs, stepMs / power) + 1);
        expect(busyMs / tookMs).toBeLessThanOrEqual(1.1 * power);
      },
    );

    test("a long step fills slices, the shortest of which is a fence, and the share is what the slider says", async () => {
      const device = new Device((i) => 2 + (i % 5));
      device.fence = () => fenceMs;
      const pace = createPace({ clock: device.clock, duty: () => 0.5 });
      pace.setFrames(16.7);
      const plan = pace.plan(quick(COUNT));
      await device.run(pace, plan);
      expect(Math.max(...device.submits)).toBeLessThanOrEqual(Math.max(8, fenceMs) + 6);
      for (let run = 0; run < 10; run += 1) {
        await device.run(pace, plan);
      }
      const before = [device.busyMs, device.nowMs] as const;
      device.submits = [];
      await device.run(pace, plan);
      expect(Math.max(...device.submits)).toBeLessThanOrEqual(Math.max(8, fenceMs) + 0.1);
      const share = (device.busyMs - before[0]) / (device.nowMs - before[1]);
      expect(share).toBeGreaterThan(0.42);
      expect(share).toBeLessThan(0.52);
    });

    test("at full power the next submit is under way before the last is heard of", async () => {
      const device = new Device(() => 5);
      device.fence = () => fenceMs;
      const pace = createPace({ clock: device.clock, duty: () => 1 });
      pace.setFrames(16.7);
      const plan = pace.plan(quick(COUNT));
      for (let run = 0; run < 10; run += 1) {
        await device.run(pace, plan);
      }
      const before = [device.busyMs, device.nowMs] as const;
      device.submits = [];
      await device.run(pace, plan);
      expect(Math.max(...device.submits)).toBeLessThanOrEqual(SUBMIT_MS_MAX);
      expect((device.busyMs - before[0]) / (device.nowMs - before[1])).toBeGreaterThan(0.75);
    });
  });

  test.each([0.45, 1.3, 2, 8, 15])(
    "a fence of about %d ms on a clock of whole milliseconds cuts no step into single dispatches",
    async (fenceMs) => {
      for (const power of [0.05, 0.1, 0.2, 0.5, 0.9]) {
        const device = new Device(() => 2.9 / COUNT);
        const rng = createRng("fences", fenceMs);
        device.fence = () => fenceMs * (0.6 + 0.8 * rng.float());
        const clock: Clock = { ...device.clock, nowMs: () => Math.floor(device.nowMs) };
        const pace = createPace({ clock, duty: () => power });
        pace.setFrames(16.7);
        const plan = pace.plan(quick(COUNT));
        for (let run = 0; run < 40; run += 1) {
          await device.run(pace, plan);
        }
        device.submits = [];
        for (let run = 0; run < 40; run += 1) {
          await device.run(pace, plan);
        }
        const perRun = device.submits.length / 40;
        expect([power, perRun, perRun < 6]).toEqual([power, perRun, true]);
      }
    },
  );

  test("a browser that looks every 100 ms gets small steps in one submit each, and none of more than a slice and two looks", async () => {
    for (const [stepMs, submitsMax] of [
      [2.9, 1],
      [1_000, 30],
    ] as const) {
      const device = new Device(() => stepMs / COUNT);
      device.tickMs = 100;
      const pace = createPace({ clock: device.clock, duty: () => 0.5 });
      pace.setFrames(16.7);
      const plan = pace.plan(quick(COUNT));
      for (let run = 0; run < 20; run += 1) {
        await device.run(pace, plan);
      }
      expect(Math.max(...device.submits)).toBeLessThanOrEqual(300);
      device.submits = [];
      await device.run(pace, plan);
      expect(device.submits.length).toBeLessThanOrEqual(submitsMax);
    }
  });

  test("a fence that becomes slower is measured anew, and one that becomes faster at once", async () => {
    const device = new Device(() => 0.03);
    const pace = createPace({ clock: device.clock, duty: () => 0.5 });
    pace.setFrames(16.7);
    const plan = pace.plan(quick(COUNT));
    const runs = async (count: number): Promise<number> => {
      device.submits = [];
      for (let run = 0; run < count; run += 1) {
        await device.run(pace, plan);
      }
      return device.submits.length / count;
    };
    await runs(10);
    for (const fenceMs of [30, 0.5, 103]) {
      device.fence = () => fenceMs;
      await runs(100);
      expect([fenceMs, await runs(10)]).toEqual([fenceMs, 1]);
    }
  });

  test("a fence that was measured while something else used the GPU is doubted, and the share is right again after seconds", async () => {
    const device = new Device(() => 1);
    const pace = createPace({ clock: device.clock, duty: () => 0.25 });
    pace.setFrames(16.7);
    const plan = pace.plan(quick(COUNT));
    const runUntil = async (ms: number): Promise<void> => {
      while (device.nowMs < ms) {
        await device.run(pace, plan);
      }
    };
    device.fence = () => 60;
    await runUntil(2_000);
    device.fence = () => 0.5;
    await runUntil(device.nowMs + 4_000);
    device.submits = [];
    const before = [device.busyMs, device.nowMs] as const;
    await runUntil(device.nowMs + 10_000);
    const share = (device.busyMs - before[0]) / (device.nowMs - before[1]);
    expect([share > 0.2, share < 0.27, share]).toEqual([true, true, share]);
    expect(Math.max(...device.submits)).toBeLessThanOrEqual(5);
  });

  test("a single short sample among long ones is the fence", async () => {
    const device = new Device(() => 1);
    const pace = createPace({ clock: device.clock, duty: () => 0.25 });
    pace.setFrames(16.7);
    const plan = pace.plan(quick(COUNT));
    await device.run(pace, plan);
    device.nowMs += 20_000;
    let samples = 0;
    device.fence = () => (++samples <= 4 ? 60 : 0.5);
    await device.run(pace, plan);
    expect(samples).toBeGreaterThan(5);
    expect(pace.state().sliceMs).toBe(4);
  });

  test("a device that is suddenly five times slower gets shorter submits with the very next, and recovers", async () => {
    const device = new Device(() => 1);
    const pace = createPace({ clock: device.clock, duty: () => 0.6 });
    const plan = pace.plan(quick(COUNT));
    for (let run = 0; run < 10; run += 1) {
      await device.run(pace, plan);
    }
    expect(Math.max(...device.submits.slice(-3))).toBeLessThanOrEqual(30);
    device.submits = [];
    device.cost = () => 5;
    await device.run(pace, plan);
    await device.run(pace, plan);
    expect(Math.max(...device.submits)).toBeLessThanOrEqual(SUBMIT_MS_MAX);
    expect(Math.max(...device.submits.slice(-15))).toBeLessThanOrEqual(30);
    device.cost = () => 1;
    for (let run = 0; run < 10; run += 1) {
      await device.run(pace, plan);
    }
    expect(device.submits.at(-2)).toBeGreaterThanOrEqual(24);
  });

  test("works its share also where every timer takes a second, with few timers", async () => {
    const device = new Device(() => 1);
    device.timerMsMin = 1_000;
    const pace = createPace({ clock: device.clock, duty: () => 0.3 });
    pace.setFrames(null);
    await settle(device, pace, 100);
    expect(device.busyMs / device.nowMs).toBeGreaterThan(0.24);
    expect(device.busyMs / device.nowMs).toBeLessThan(0.36);
  });

  test("eases off while frames come too late because of it, and recovers when they do not", async () => {
    let duty = 0.5;
    const device = new Device(() => 1);
    const pace = createPace({ clock: device.clock, duty: () => duty });
    pace.setFrames(16.7);
    const { sliceMs, share } = pace.state();
    expect([sliceMs, share]).toEqual([8, 0.5]);
    pace.setFrames(50);
    expect(pace.state().share).toBe(0.5); // nothing was worked in that second
    for (let second = 0; second < 10; second += 1) {
      await settle(device, pace, 1);
      pace.setFrames(50);
    }
    expect(pace.state().share).toBeCloseTo(0.05, 6);
    expect(pace.state().sliceMs).toBe(2);
    duty = 1;
    expect(pace.state().share).toBe(1); // full power is what the person asked for
    duty = 0.5;
    for (let second = 0; second < 20; second += 1) {
      await settle(device, pace, 1);
      pace.setFrames(17);
    }
    expect(pace.state().share).toBe(0.5);
  });

  test("asks no more of a slow screen than it gives when left alone", async () => {
    const device = new Device(() => 1);
    const pace = createPace({ clock: device.clock, duty: () => 0.5 });
    pace.setFrames(33.4);
    for (let second = 0; second < 10; second += 1) {
      await settle(device, pace, 1);
      pace.setFrames(36);
    }
    expect(pace.state().share).toBe(0.5);
  });

  test("work() rests after what an engine did without a pace, and never as long as a suspended machine slept", async () => {
    const device = new Device(() => 1);
    const pace = createPace({ clock: device.clock, duty: () => 0.25 });
    await pace.work(async () => {
      device.nowMs += 300;
    });
    expect(device.sleptMs).toBeCloseTo(900, 6);
    await pace.work(async () => {
      device.nowMs += 3_600_000;
    });
    expect(device.sleptMs).toBeLessThanOrEqual(11_000);
  });

  test("what is computed outside of work() is cut, and never rested after", async () => {
    const device = new Device(() => 1);
    const pace = createPace({ clock: device.clock, duty: () => 0.1 });
    const plan = pace.plan(quick(2));
    for (let from = 0; from < 2; from += 1) {
      await plan.submitted(from, from + 1, Promise.resolve());
    }
    expect(device.sleptMs).toBe(0);
  });

  test.each(["abort", "end"] as const)("rests no more once the work is to stop: %s", async (how) => {
    const device = new Device(() => 1);
    const pace = createPace({ clock: device.clock, duty: () => 0.1 });
    const signal = createStop();
    await pace.work(
      async () => {
        device.nowMs += 100;
        signal[how]();
      },
      { signal },
    );
    expect(device.sleptMs).toBe(0);
    await pace.work(async () => {}, { signal: createStop() });
    expect(device.sleptMs).toBeCloseTo(900, 6); // it is still owed when the work goes on
  });

  test.each(["abort", "end"] as const)("a rest under way ends when the work is to stop: %s", async (how) => {
    let nowMs = 0;
    let cancelled = 0;
    // Its timers never come.
    const clock: Clock = { nowMs: () => nowMs, after: () => () => (cancelled += 1) };
    const pace = createPace({ clock, duty: () => 0.1 });
    const signal = createStop();
    const resting = pace.work(
      async () => {
        nowMs += 100;
      },
      { signal },
    );
    await new Promise((resolve) => setImmediate(resolve)); // by now it rests
    nowMs += 10;
    signal[how]();
    await resting;
    expect(cancelled).toBe(1);
  });

  test("rests until the deadline of the work and no further; what is left is owed", async () => {
    const device = new Device(() => 1);
    const pace = createPace({ clock: device.clock, duty: () => 0.1 });
    const work = async (): Promise<void> => {
      device.nowMs += 100;
    };
    await pace.work(work, { deadlineMs: 250 });
    expect([device.nowMs, device.sleptMs]).toEqual([250, 150]);
    await pace.work(work, { deadlineMs: 300 });
    expect([device.nowMs, device.sleptMs]).toEqual([350, 150]); // the deadline passed before the rest began
    await pace.work(async () => {});
    expect(device.sleptMs).toBeCloseTo(1_800, 6);
  });

  test("a page that is no longer seen is not eased off for", async () => {
    const device = new Device(() => 1);
    const pace = createPace({ clock: device.clock, duty: () => 0.5 });
    pace.setFrames(16.7);
    await settle(device, pace, 1);
    pace.setFrames(50);
    expect(pace.state().share).toBeCloseTo(0.35, 6);
    pace.setFrames(null);
    expect(pace.state().share).toBe(0.5);
    pace.setFrames(19);
    expect(pace.state().share).toBeCloseTo(0.35, 6); // seen again, it goes on from where it was
  });

  test("a submit that fails makes the run fail", async () => {
    const device = new Device(() => 1);
    const plan = createPace({ clock: device.clock, duty: () => 1 }).plan(quick(2));
    await plan.submitted(0, 1, Promise.resolve());
    const lost = Promise.reject(new Error("lost"));
    lost.catch(() => undefined);
    await expect(plan.submitted(1, 2, lost).then(() => plan.submitted(0, 1, Promise.resolve()))).rejects.toThrow(
      "lost",
    );
  });
});
