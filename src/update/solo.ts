/** A crew without threads: for simulations, experiments and tests, and for those who do a relay's merges again. */
import type { Bytes } from "../base/bytes.ts";
import { taken, type OpenCrew } from "./crew.ts";
import type { OpenMergeKernel } from "./kernel.ts";
import { RangeWork } from "./range.ts";

/** Opens crews of `count` workers that work one after the other on the caller's thread, on memory of the ordinary kind. */
export function soloCrew(openKernel: OpenMergeKernel, count = 1): OpenCrew {
  return () => ({
    workers: Array.from({ length: count }, () => new RangeWork(openKernel())),
    memory: { take: (bytes) => taken(bytes, () => new ArrayBuffer(bytes)), give: () => undefined },
    seal: (bytes) => ({ bytes: bytes as Bytes }), // what `take` gives is not shared
  });
}
