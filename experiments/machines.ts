/**
 * The contributors' machines of a simulated run: the production session and the production work on one shared engine, on
 * disks that outlive their processes. Steps take the virtual time of the machine's device. A machine that vanishes is killed
 * at some time of its training, whatever it had under way, and starts again from its disk when the round is over.
 */
import { present } from "../src/base/assert.ts";
import type { Digest } from "../src/base/bytes.ts";
import { digestOf, floatBytes } from "../src/base/bytes.ts";
import { sleep } from "../src/base/clock.ts";
import { createRng } from "../src/base/rng.ts";
import { createContributor, type Contributor } from "../src/contributor/run.ts";
import { createWork, type Work } from "../src/contributor/work.ts";
import type { VirtualClock } from "../src/sim/clock.ts";
import type { Network } from "../src/sim/network.ts";
import { createProcess, type Process } from "../src/sim/process.ts";
import { createMemoryDisk } from "../src/store/memory.ts";
import type { Engine } from "../src/tensor/engine.ts";
import { createNoiseWork } from "./noise.ts";
import type { Participant, Setting } from "./setting.ts";

/** Machines begin within this time. */
const START_MS = 1_000;

export interface MachinesOptions {
  readonly setting: Setting;
  readonly clock: VirtualClock;
  readonly network: () => Network;
  /** An engine for the contributor of this number, empty again after each start of its machine. */
  readonly seat: (owner: string) => Engine;
  /** A replica of the base, by what its contributor says that it is. */
  readonly onReplica: (replica: {
    readonly contributor: number;
    readonly version: number;
    readonly digest: Digest;
  }) => void;
}

export interface Machines {
  start(): void;
  /** Of the process that a link belongs to. */
  numberOf(process: Process): number;
  /** A round has opened: who vanished in the last one comes back. */
  roundOpened(round: number): void;
  /** No more training is begun; what comes to rest after it costs no computing. */
  finish(): void;
  readonly contributors: () => readonly {
    readonly number: number;
    readonly contributor: Contributor;
    readonly alive: boolean;
  }[];
  readonly steps: () => number;
  readonly vanished: () => number;
  /** Share of the time since the first round opened that a device stood idle, on average. */
  readonly idle: () => number;
}

interface Machine {
  readonly process: Process;
  readonly contributor: Contributor;
}

export function createMachines(options: MachinesOptions): Machines {
  const { setting, clock } = options;
  const { arm, seed } = setting;
  const machines = new Map<number, Machine>();
  const numbers = new WeakMap<Process, number>();
  const away = new Set<number>();
  let [steps, vanished, finished] = [0, 0, false];
  let [openedMs, busyMs] = [Number.NaN, 0];
  const training: Training = {
    began: ({ number, stepMs }, process, round) => {
      const rng = createRng("vanish", seed, round, number);
      const { trainMs, stepsMax } = setting.charter.round;
      const [leaves, atMs] = [rng.float() < arm.vanishShare, rng.below(Math.min(trainMs, stepMs * stepsMax))];
      if (leaves) {
        clock.after(atMs, () => {
          if (process.alive && !finished) {
            vanished += 1;
            process.kill();
            away.add(number);
          }
        });
      }
    },
    stepped: () => {
      steps += 1;
    },
    worked: (ms) => {
      busyMs += ms;
    },
    finished: () => finished,
  };

  const boot = (participant: Participant): (() => void) => {
    let disk = createMemoryDisk();
    let life = 0;
    return () => {
      life += 1;
      disk = arm.forgets ? createMemoryDisk() : disk;
      const name = `contributor ${participant.number}.${life}`;
      const process = createProcess({ name, clock, disk, rng: createRng("disk", seed, name), writeMsMax: 0 });
      numbers.set(process, participant.number);
      const contributor = createSession(options, { participant, process, training });
      machines.set(participant.number, { process, contributor });
      contributor.start();
    };
  };
  const starts = setting.contributors.map(boot);

  return {
    start: () => {
      const rng = createRng("start", seed);
      starts.forEach((start) => clock.after(rng.below(START_MS), start));
    },
    numberOf: (process) => numbers.get(process) ?? -1,
    roundOpened: (round) => {
      openedMs = Number.isNaN(openedMs) ? clock.nowMs() : openedMs;
      for (const number of away) {
        clock.after(createRng("back", seed, round, number).below(START_MS), starts[number] as () => void);
      }
      away.clear();
    },
    finish: () => {
      finished = true;
    },
    contributors: () =>
      [...machines].map(([number, { contributor, process }]) => ({ number, contributor, alive: process.alive })),
    steps: () => steps,
    vanished: () => vanished,
    idle: () => 1 - busyMs / (setting.contributors.length * (clock.nowMs() - openedMs)),
  };
}

interface Training {
  /** Some are killed while they train. */
  began(participant: Participant, process: Process, round: number): void;
  stepped(): void;
  /** The device was busy for so long. */
  worked(ms: number): void;
  finished(): boolean;
}

interface Session {
  readonly participant: Participant;
  readonly process: Process;
  readonly training: Training;
}

function createSession(
  { setting, network, seat, onReplica }: MachinesOptions,
  { participant, process, training }: Session,
): Contributor {
  const { charter, seed } = setting;
  const { number, key, own, stepMs } = participant;
  const { clock } = process;
  /** The device is at it for as long as it is slow. */
  const pace = {
    work: async <T>(run: () => Promise<T>): Promise<T> => {
      const result = await run();
      await sleep(clock, stepMs);
      training.worked(stepMs);
      return result;
    },
  };
  const watched = (work: Work): Work => ({
    ...work,
    train: (assignment, from, job) => {
      if (training.finished()) {
        return new Promise(() => {});
      }
      if (job.firstStep === undefined) {
        const digest = digestOf(floatBytes(new Float32Array(present(contributor.parameters(), "the base"))));
        onReplica({ contributor: number, version: assignment.baseVersion, digest });
        training.began(participant, process, assignment.round);
      } // else it goes on ahead of its next assignment
      const onStep: typeof job.onStep = (step) => {
        training.stepped();
        job.onStep(step);
      };
      return work.train(assignment, from, { ...job, onStep });
    },
  });
  const engine = seat(String(number));
  const contributor: Contributor = createContributor({
    dial: (attach) => network().dial(process, attach, {}),
    fetchBlob: (digest, bytesMax) => network().fetchBlob(process, digest, bytesMax),
    store: process.store,
    clock,
    rng: createRng("session", seed, process.name),
    key,
    verify: setting.registry.verify,
    engine: { kind: engine.kind, device: engine.device, sentence: "" },
    createWork: async ({ contributor: id }) => {
      if (setting.arm.work === "noise") {
        const tokensPerStep = charter.inner.batch * charter.model.time;
        return watched(createNoiseWork({ seed, number, tokensPerStep, pace }));
      }
      // The texts that it has fetched are the setting's, which all share.
      const [corpus, privateCorpus] = [setting.train, own === undefined ? {} : { privateCorpus: own }];
      return watched(await createWork({ engine, charter, contributor: id, corpus, clock, pace, ...privateCorpus }));
    },
    privateData: own !== undefined,
    agent: "experiment",
  });
  return contributor;
}
