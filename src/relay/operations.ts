/**
 * What an operator can ask of a relay and have done by it (`npm run admin`). The same operations are offered by a relay that
 * runs, over its socket (`operator-socket.ts`), and by a folder in which none does.
 */
import { stat } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { HeddleError } from "../base/assert.ts";
import type { Bytes, Digest } from "../base/bytes.ts";
import type { Draft } from "../coordinator/draft.ts";
import type { CoordinatorHost } from "../coordinator/host.ts";
import { openJournal } from "../coordinator/journal.ts";
import { startState, type OperatorCommand } from "../coordinator/live.ts";
import { operate, refusalOf } from "../coordinator/operator.ts";
import { operatorViewOf, viewOf, type OperatorView } from "../coordinator/view.ts";
import { loadDeviceKey } from "../net/device-key-node.ts";
import type { Lane } from "../net/link.ts";
import { createSecretRng } from "../net/secret-rng.ts";
import { systemClock } from "../net/system-clock.ts";
import type { Charter } from "../protocol/charter.ts";
import type { RunView, VersionView } from "../protocol/run-view.ts";
import { openEmbeddedStore } from "../store/embedded.ts";
import { DATABASE } from "../store/locked.ts";
import { CUT_OFF_MS, entriesOf, type Store } from "../store/store.ts";
import { backUp, type BackupReport } from "./backup.ts";
import { KEY_FILE, type PlacedStore } from "./place.ts";
import { pruneBlobs, type PruneOptions, type PruneReport } from "./prune.ts";
import { readCharter } from "./run.ts";

export interface Operations {
  status(): Promise<Status>;
  /** The ledger's entries, as they were written. */
  entries(): AsyncIterable<Bytes>;
  /** Rejects with HeddleError "bad-input" when it cannot be done. */
  operate(command: OperatorCommand): Promise<void>;
  /** Backs up into the folder `to`, an absolute path. */
  backUp(to: string): Promise<BackupReport>;
  prune(options: PruneOptions): Promise<PruneReport>;
  close(): Promise<void>;
}

export interface Status extends OperatorView {
  /** Of the relay; null when none runs. */
  readonly process: number | null;
  /** Names the process that leads the run, where another relay of it was asked. */
  readonly leader: string | null;
  readonly run: Digest;
  readonly name: string;
  readonly parameters: number;
  readonly round: number;
  readonly phase: RunView["phase"];
  readonly head: VersionView | null;
  readonly lanes: Readonly<Record<Lane, number>>;
  readonly entries: number;
  readonly blobs: number;
  readonly blobBytes: number;
}

interface StatusParts {
  readonly process: number | null;
  readonly view: RunView;
  readonly operatorView: OperatorView;
  readonly lanes: Readonly<Record<Lane, number>>;
  readonly store: Store;
}

async function statusOf({ view, operatorView, store, ...rest }: StatusParts): Promise<Status> {
  const { run, parameters, round, phase, charter } = view;
  const blobs = await store.blobs.list();
  let blobBytes = 0;
  for (const digest of blobs) {
    blobBytes += (await store.blobs.size(digest)) ?? 0;
  }
  return {
    ...operatorView,
    ...rest,
    leader: null,
    run,
    name: charter.name,
    parameters,
    round,
    phase,
    head: view.versions.at(-1) ?? null,
    entries: await store.log.length(),
    blobs: blobs.length,
    blobBytes,
  };
}

export interface RunningParts {
  readonly dir: string;
  /** Has another relay take the run over and this one end; false where there is no other. */
  readonly handOver: () => Promise<boolean>;
  readonly host: CoordinatorHost;
  readonly store: PlacedStore;
  readonly charter: Charter;
}

/** The operations of a relay that runs. */
export function operationsOf({ dir, host, store, charter, handOver }: RunningParts): Operations {
  return {
    status: () => {
      const parts = { view: host.view(), operatorView: host.operatorView(), lanes: host.lanes(), store };
      return statusOf({ process: process.pid, ...parts });
    },
    entries: () => entriesOf(store.log),
    operate: async (command) => {
      if (command.type !== "drain" || !(await handOver())) {
        done(await host.operate(command));
      }
    },
    backUp: (to) => backUp(store, dir, to),
    prune: async (options) => {
      const facts = { charter, ...options };
      const pruned = await host.whileStill((durable, entries) => pruneBlobs(store, { ...facts, durable, entries }));
      // The run goes on meanwhile: what is cut off for an hour is nobody's, and there may be much to look through.
      return { ...pruned, cutOff: options.dryRun ? 0 : ((await store.sweep?.(CUT_OFF_MS)) ?? 0) };
    },
    close: async () => undefined,
  };
}

/** The operations of a folder in which no relay runs. Throws HeddleError when there is no run in it, or it is in use. */
export async function operationsAtRest(dir: string): Promise<Operations> {
  if (!(await isFile(join(dir, DATABASE))) || !(await isFile(join(dir, KEY_FILE)))) {
    const hint =
      "name its folder with --dir (of a run on NATS: that of a relay that serves it; a backup also takes --nats)";
    throw new HeddleError("bad-input", `Cannot find a relay's run in "${dir}"; ${hint}`);
  }
  const store = await openEmbeddedStore(dir);
  const open = async () => {
    const charter = await readCharter(store);
    const key = await loadDeviceKey(join(dir, KEY_FILE));
    const { journal, durable } = await openJournal({ log: store.log, key, clock: systemClock });
    if (durable === null) {
      throw new HeddleError("bad-input", "Cannot read the run: none has begun here");
    }
    return { journal, charter, durable, state: startState(charter, durable, Date.now()) };
  };
  return {
    status: async () => {
      const { state } = await open();
      const lanes = { memory: 0, ws: 0, rtc: 0 };
      return statusOf({ process: null, view: viewOf(state), operatorView: operatorViewOf(state), lanes, store });
    },
    entries: () => entriesOf(store.log),
    operate: async (command) => {
      if (command.type === "drain") {
        throw new HeddleError("bad-input", "Cannot drain: no relay runs in this folder");
      }
      const { journal, state } = await open();
      done(refusalOf(state, command));
      const draft: Draft = { state, events: [], effects: [], nowMs: Date.now(), rng: createSecretRng() };
      operate(draft, command);
      await journal.append(draft.events, draft.nowMs);
    },
    backUp: (to) => backUp(store, dir, to),
    prune: async (options) => {
      const { charter, durable, journal } = await open();
      const pruned = await pruneBlobs(store, { charter, durable, entries: journal.length(), ...options });
      return { ...pruned, cutOff: 0 }; // opening a folder's store has swept it
    },
    close: () => store.close(),
  };
}

function done(refusal: string | null): void {
  if (refusal !== null) {
    throw new HeddleError("bad-input", refusal);
  }
}

async function isFile(path: string): Promise<boolean> {
  return (await stat(path).catch(() => null))?.isFile() === true;
}
