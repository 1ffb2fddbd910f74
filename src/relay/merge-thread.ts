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
import type { Cuts, MergeTask, Piece, Place, Sealed, StepTask, Trouble } from "../update/crew.ts";
import type { Counted, PackedChunks } from "../update/pack.ts";
import { RangeWork } from "../update/range.ts";
import { loadMergeKernel } from "../wasm/merge.ts";

const work = new RangeWork((await loadMergeKernel())());

const surface = {
  ready: (): boolean => true,
  begin: (task: MergeTask): boolean => work.begin(task),
  cut(payload: Bytes, cuts: Cuts, place: Place): readonly (Piece | null)[] | Trouble {
    const pieces = work.cut(payload, cuts, place);
    return typeof pieces === "string"
      ? pieces
      : transfer(
          pieces,
          pieces.flatMap((piece) => (piece === null ? [] : [piece.bytes.buffer])),
        );
  },
  load: (piece: Piece, place: Place): boolean => work.load(piece, place),
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
