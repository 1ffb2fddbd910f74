/**
 * A worker of the relay's crew on a thread of its own: one range's share of every step (`update/range.ts`), and copies of whole
 * buffers with their digests, so that the relay's own thread does nothing that takes time per parameter. `merge-crew.ts` is its
 * other end.
 */
import { hash } from "node:crypto";
import { parentPort } from "node:worker_threads";
import { expose, transfer } from "comlink";
import nodeEndpoint from "comlink/dist/esm/node-adapter.mjs";
import { present } from "../base/assert.ts";
import type { Bytes, Digest } from "../base/bytes.ts";
import type { MergeTask, Piece, Sealed, StepTask, Trouble } from "../update/crew.ts";
import type { Counted, PackedChunks } from "../update/pack.ts";
import { RangeWork } from "../update/range.ts";
import { loadMergeKernel } from "../wasm/merge.ts";

const work = new RangeWork((await loadMergeKernel())());

const surface = {
  ready: (): boolean => true,
  begin: (task: MergeTask): boolean => work.begin(task),
  cut(payload: Bytes, parameters: number, starts: readonly number[]): readonly Piece[] | Trouble {
    const pieces = work.cut(payload, parameters, starts);
    return typeof pieces === "string"
      ? pieces
      : transfer(
          pieces,
          pieces.map(({ bytes }) => bytes.buffer),
        );
  },
  load: (number: number, piece: Piece, factors: Parameters<RangeWork["load"]>[2]): boolean =>
    work.load(number, piece, factors),
  merge: (group: Parameters<RangeWork["merge"]>[0]): number => work.merge(group),
  squares: (sum: number): number => work.squares(sum),
  advance: (task: StepTask): Counted => work.advance(task),
  pack(keep: number): PackedChunks {
    const part = work.pack(keep);
    return transfer(part, [part.bits.buffer, part.exact.buffer]);
  },

  /** A copy of shared bytes that is nobody else's. */
  seal(shared: Uint8Array): Sealed {
    const bytes = new Uint8Array(shared);
    return transfer({ bytes, digest: hash("sha256", bytes, "hex") as Digest }, [bytes.buffer]);
  },
};

export type MergeThread = typeof surface;

expose(surface, nodeEndpoint(present(parentPort, "parent port")));
