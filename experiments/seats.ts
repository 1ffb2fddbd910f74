/**
 * One engine for many contributors: each has a seat, which looks like an engine of its own. A Program is compiled once for
 * all; what a seat has trained (parameters, moments) is put into the engine when its Plan runs and taken out when another
 * seat's turn comes. So 32 contributors cost 32 times the states and once the values, and computing one after the other
 * gives every seat the bits that it would get alone.
 */
import { assert, present } from "../src/base/assert.ts";
import type { Engine, Outputs, Plan } from "../src/tensor/engine.ts";
import { elementCount, type Program } from "../src/tensor/program.ts";
import type { Idle } from "./idle.ts";
import type { Journal } from "./journal.ts";

/** Written before it is read by every Program that has it, so it belongs to nobody. */
const SCRATCH: ReadonlySet<string> = new Set(["grads"]);

type Values = Float32Array<ArrayBuffer>;

export interface Seats {
  /** A seat for `owner`; another one of the same owner begins empty. */
  take(owner: string): Engine;
  /** Makes what was computed up to now survive an interruption. */
  save(): Promise<void>;
  /** Frees the engine. */
  [Symbol.dispose](): void;
}

export interface SeatsOptions {
  readonly engine: Engine;
  readonly idle: Idle;
  /** What was computed before the run was cut off is read from here, not computed again. */
  readonly journal?: Journal | undefined;
}

interface Compiled {
  readonly plan: Plan;
  /** Lengths of the states that it uses, by name. */
  readonly states: ReadonlyMap<string, number>;
}

interface Seat {
  readonly owner: string;
  /** The states of this seat that are not in the engine; those that are may be here too, and are out of date. */
  readonly states: Map<string, Values>;
}

export function shareEngine({ engine, idle, journal }: SeatsOptions): Seats {
  const compiled = new Map<string, Promise<Compiled>>();
  /** Whose the engine's states are. */
  const resident = new Map<string, Seat>();
  let last: Promise<unknown> = Promise.resolve();
  /**
   * The engine does one thing after the other, and answers when nothing else is left to do at the moment: how soon it
   * answers, or that the journal answers for it, then changes no order of events.
   */
  const inTurn = <T>(work: () => Promise<T>): Promise<T> => {
    const answered = last.then(work).then(async (answer) => {
      await new Promise((resolve) => setImmediate(resolve));
      return answer;
    });
    const done = idle.track(answered);
    last = done.catch(() => undefined); // told to whoever asked
    return done;
  };
  const compile = (program: Program): Promise<Compiled> => {
    const key = JSON.stringify(program);
    const known = compiled.get(key);
    if (known !== undefined) {
      return known;
    }
    const made = inTurn(async () => ({ plan: await engine.compile(program), states: statesOf(program) }));
    compiled.set(key, made);
    return made;
  };
  const sitDown = async (seat: Seat, names: Iterable<string>): Promise<void> => {
    for (const name of names) {
      const before = resident.get(name);
      if (before === seat || SCRATCH.has(name)) {
        continue;
      }
      if (before !== undefined) {
        before.states.set(name, await engine.readState(name));
      }
      engine.writeState(name, present(seat.states.get(name), `state "${name}" of seat ${seat.owner}`));
      resident.set(name, seat);
    }
  };
  const stateOf = async (seat: Seat, name: string): Promise<Values> =>
    resident.get(name) === seat
      ? engine.readState(name)
      : present(seat.states.get(name), `state "${name}" in any compiled plan`).slice();

  const all = new Map<string, Seat>();
  const states = async (): Promise<Map<string, Map<string, Values>>> => {
    const read = new Map<string, Map<string, Values>>();
    for (const [owner, seat] of all) {
      const own = new Map<string, Values>();
      for (const name of seat.states.keys()) {
        own.set(name, await stateOf(seat, name));
      }
      read.set(owner, own);
    }
    return read;
  };

  const take = (owner: string): Engine => {
    const seat: Seat = { owner, states: new Map() };
    all.set(owner, seat);
    journal?.onLoad(owner, (states) => {
      for (const [name, values] of states) {
        seat.states.set(name, values);
      }
    });
    return {
      kind: engine.kind,
      device: engine.device,
      compile: async (program) => {
        const { plan, states } = await compile(program);
        for (const [name, length] of states) {
          if (!seat.states.has(name) && !SCRATCH.has(name)) {
            seat.states.set(name, new Float32Array(length));
          }
        }
        const written = new Map<string, Float32Array | Uint32Array>();
        return {
          valueBytes: plan.valueBytes,
          stateBytes: plan.stateBytes,
          describe: () => plan.describe(),
          write: (input, values) => void written.set(input, values.slice()),
          run: <Name extends string>(outputs: readonly Name[] = []): Promise<Outputs<Name>> =>
            inTurn(async () => {
              const known = journal?.nextRun(outputs);
              if (known !== undefined) {
                return known;
              }
              await sitDown(seat, states.keys());
              for (const [input, values] of written) {
                plan.write(input, values);
              }
              const made = await plan.run(outputs);
              journal?.noteRun(made);
              return made;
            }),
          [Symbol.dispose]: () => undefined, // others use it
        };
      },
      writeState: (name, values) => {
        const held = present(seat.states.get(name), `state "${name}" in any compiled plan`);
        assert(
          held.length === values.length,
          `Cannot write state "${name}": got ${values.length} elements, need ${held.length}`,
        );
        seat.states.set(name, new Float32Array(values));
        if (resident.get(name) === seat) {
          resident.delete(name);
        }
      },
      readState: (name) =>
        inTurn(async () => {
          const known = journal?.nextRead(owner, name);
          if (known !== undefined) {
            return known;
          }
          const values = await stateOf(seat, name);
          journal?.noteRead(owner, name, values);
          return values;
        }),
      [Symbol.dispose]: () => undefined, // the engine is everyone's
    };
  };
  return {
    take,
    save: () => inTurn(async () => journal?.save(states)),
    [Symbol.dispose]: () => engine[Symbol.dispose](),
  };
}

function statesOf({ tensors }: Program): Map<string, number> {
  const own = tensors.filter(({ role, view }) => role === "state" && view === undefined);
  return new Map(own.map(({ name, shape }) => [name, elementCount(shape)]));
}
