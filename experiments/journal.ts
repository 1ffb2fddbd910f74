/**
 * What a run has computed so far, on disk, so that a run that was cut off need not compute it again. A simulated run is a
 * function of its seed, so an interrupted one begins anew and finds here, in the order in which it asks, what the engine
 * answered the first time: the history, clocks and bytes included, comes out as if there had been no interruption. From the
 * last saved point on (a version of the base) the engine computes again.
 *
 * `log`: the answers one after the other; `states`: what every seat held at the saved point, and how much of the log is
 * behind it, written whole and renamed. AdamW's moments are read after each round and wanted again only after a restart of a
 * contributor: of these the log has a mark, and `states` the latest.
 */
import {
  closeSync,
  existsSync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { decode, encode } from "@msgpack/msgpack";
import { assert, present } from "../src/base/assert.ts";
import { bytesToFloats, floatBytes, type Bytes } from "../src/base/bytes.ts";
import type { Outputs } from "../src/tensor/engine.ts";

type Values = Float32Array<ArrayBuffer>;
type States = ReadonlyMap<string, Values>;

/** Read often, wanted rarely. */
const MOMENTS: ReadonlySet<string> = new Set(["m", "v"]);

export interface Journal {
  /** What the engine answered here the first time; undefined once there is no more. */
  nextRun<Name extends string>(outputs: readonly Name[]): Outputs<Name> | undefined;
  noteRun(outputs: Outputs<string>): void;
  nextRead(owner: string, name: string): Values | undefined;
  noteRead(owner: string, name: string, values: Values): void;
  /** How a seat gets its states back, once the run has come to the point that was saved last. */
  onLoad(owner: string, load: (states: States) => void): void;
  /**
   * Makes everything up to now survive an interruption; `seats` reads the states of all seats, by owner. To be called at the
   * same points in every life of the run, between two answers of the engine.
   */
  save(seats: () => Promise<ReadonlyMap<string, States>>): Promise<void>;
  /** Answers that came from an earlier life. */
  readonly remembered: number;
  /** Closes; `remove` when the run is finished and nobody will ask again. */
  close(options: { readonly remove: boolean }): void;
}

interface Saved {
  readonly logBytes: number;
  readonly seats: Readonly<Record<string, Readonly<Record<string, Bytes>>>>;
  readonly moments: Readonly<Record<string, Bytes>>;
}

/** Opens the journal in `dir`, which is made when absent; what was not saved is forgotten. */
export function openJournal(dir: string): Journal {
  mkdirSync(dir, { recursive: true });
  const [logPath, statesPath] = [join(dir, "log"), join(dir, "states")];
  const saved = existsSync(statesPath) ? (decode(readFileSync(statesPath)) as Saved) : null;
  const log = openSync(logPath, existsSync(logPath) ? "r+" : "w+");
  const end = saved?.logBytes ?? 0;
  assert(
    fstatSync(log).size >= end,
    `Cannot go on from the journal in "${dir}": its log is cut off; begin it with --fresh`,
  );
  ftruncateSync(log, end);
  let [at, remembered, written] = [0, 0, end];
  let loaded = end === 0;
  const loads = new Map<string, (states: States) => void>();
  /** The latest of each seat. */
  const moments = new Map<string, Values>();

  const take = (bytes: number): Bytes => {
    const part = new Uint8Array(bytes);
    const got = readSync(log, part, 0, bytes, at);
    assert(got === bytes, `Cannot read the journal: got ${got} bytes, need ${bytes}`);
    at += bytes;
    return part;
  };
  /** The next answer, or undefined behind the saved point. */
  const next = (): Values | undefined => {
    if (at < end) {
      const [length = 0] = new Uint32Array(take(4).buffer);
      return bytesToFloats(take(4 * length));
    }
    assert(
      loaded,
      "Cannot go on from the journal: the run has come to its saved point in another way than before; begin it with --fresh",
    );
    return undefined;
  };
  /** The run is where it was when it was saved: the seats get their states back. */
  const load = (): void => {
    loaded = true;
    for (const [owner, states] of Object.entries(saved?.seats ?? {})) {
      loads.get(owner)?.(new Map(Object.entries(states).map(([name, bytes]) => [name, bytesToFloats(bytes)])));
    }
  };
  const append = (values: Values): void => {
    for (const part of [new Uint8Array(new Uint32Array([values.length]).buffer), floatBytes(values)]) {
      writeSync(log, part, 0, part.length, written);
      written += part.length;
    }
  };
  const momentKey = (owner: string, name: string): string => `${owner} ${name}`;

  return {
    nextRun: <Name extends string>(outputs: readonly Name[]) => {
      const counted = next();
      if (counted === undefined) {
        return undefined;
      }
      const { length } = counted;
      assert(
        length === outputs.length,
        `Cannot read the journal: it has ${length} outputs of a run that asks for ${outputs.length}`,
      );
      remembered += 1;
      return Object.fromEntries(outputs.map((name) => [name, present(next(), `output "${name}"`)])) as Outputs<Name>;
    },
    noteRun: (outputs) => {
      const values = Object.values(outputs);
      // How many there are: a run may have none.
      append(new Float32Array(values.length));
      values.forEach(append);
    },
    nextRead: (owner, name) => {
      const values = next();
      remembered += values === undefined ? 0 : 1;
      if (values === undefined || !MOMENTS.has(name)) {
        return values;
      }
      const bytes = saved?.moments[momentKey(owner, name)];
      const latest = bytes === undefined ? new Float32Array(0) : bytesToFloats(bytes);
      moments.set(momentKey(owner, name), latest);
      return latest;
    },
    noteRead: (owner, name, values) => {
      if (MOMENTS.has(name)) {
        moments.set(momentKey(owner, name), values);
        append(new Float32Array(0));
      } else {
        append(values);
      }
    },
    onLoad: (owner, load) => void loads.set(owner, load),
    save: async (read) => {
      if (!loaded) {
        if (at === end) {
          load();
        }
        return; // what is being remembered is saved already
      }
      const seats: Record<string, Record<string, Bytes>> = {};
      for (const [owner, states] of await read()) {
        seats[owner] = Object.fromEntries([...states].map(([name, values]) => [name, floatBytes(values)]));
      }
      const kept = Object.fromEntries([...moments].map(([key, values]) => [key, floatBytes(values)]));
      const now: Saved = { logBytes: written, seats, moments: kept };
      fsyncSync(log); // before a state says that this much of it is there
      writeFileSync(`${statesPath}.new`, encode(now), { flush: true });
      renameSync(`${statesPath}.new`, statesPath);
    },
    get remembered() {
      return remembered;
    },
    close: ({ remove }) => {
      closeSync(log);
      if (remove) {
        rmSync(dir, { recursive: true, force: true });
      }
    },
  };
}
