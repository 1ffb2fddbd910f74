/**
 * From what training made of the parameters to what is sent: the difference goes into the residual, and what is largest in it into a
 * payload (`update/`). Where the parameters are still on an engine, it does both, and what comes back is the packed bits and,
 * because it has to outlive this process, the residual: the notebook holds that, and the engine keeps nothing of it. On the
 * host it is the same in plain loops, for updates that travel exactly and for engines that have no room left.
 */
import { HeddleError } from "../base/assert.ts";
import type { Bytes } from "../base/bytes.ts";
import type { Compression } from "../protocol/charter.ts";
import type { Engine } from "../tensor/engine.ts";
import type { Program } from "../tensor/program.ts";
import { record } from "../tensor/record.ts";
import { deltaOf } from "../update/delta.ts";
import { accumulate, createResidual, shareLeft } from "../update/feedback.ts";
import { packUpdate } from "../update/pack.ts";
import { joinSlots, type SlotShape } from "../update/slots.ts";

/** What a change of the parameters [P] is added to. It stays as it is: it may be written down. */
export interface Feed {
  /** That the change is counted from. */
  readonly start: Float32Array<ArrayBuffer>;
  /** [P]; one of another length, or none, counts as zeros. */
  readonly residual: Float32Array<ArrayBuffer> | Float64Array<ArrayBuffer> | null;
  /** Rounds that passed without a contribution. */
  readonly rounds: number;
  readonly uplink: Compression;
}

export interface Packed {
  readonly payload: Bytes;
  /** [P], with what was packed still in it. */
  readonly residual: NonNullable<Feed["residual"]>;
}

/** Packs what became of the parameters; both throw HeddleError "device-wrong" where that is not finite. */
export function packOnHost({ start, residual: before, rounds, uplink }: Feed, after: Float32Array): Packed {
  const { bits, beta } = uplink;
  const delta = deltaOf(start, after, bits);
  if (!delta.every((value) => Number.isFinite(value))) {
    throw notFinite();
  }
  const fits = before !== null && before.length === delta.length;
  const residual = fits ? before.slice() : createResidual(delta.length, bits);
  accumulate(residual, delta, shareLeft({ beta, missed: rounds }));
  return { payload: packUpdate(residual, uplink), residual: residual as Packed["residual"] };
}

/** Packs what became of the parameters, which are the state "params" of `engine`, there; not for 64 bits. */
export async function packOnEngine(engine: Engine, feed: Feed): Promise<Packed> {
  const { start, residual: before, rounds, uplink } = feed;
  const shape = { parameters: start.length, keep: uplink.keep, bits: uplink.bits };
  let plan;
  try {
    plan = await engine.compile(packProgram(shape));
  } catch (error) {
    if (error instanceof HeddleError && error.code === "model-too-big") {
      return packOnHost(feed, await engine.readState("params"));
    }
    throw error;
  }
  using compiled = plan;
  const fits = before instanceof Float32Array && before.length === start.length;
  compiled.write("residual", fits ? before : new Float32Array(start.length));
  compiled.write("start", start);
  compiled.write("scale", Float32Array.of(shareLeft({ beta: uplink.beta, missed: rounds })));
  const { slots, residual } = await compiled.run(["slots", "residual"]);
  const payload = joinSlots(new Uint32Array(slots.buffer), shape);
  if (payload === null) {
    throw notFinite();
  }
  return { payload, residual };
}

/** Compiled for each round and given up after it, so that training has the memory in between. */
function packProgram({ parameters, ...form }: SlotShape): Program {
  const r = record("pack");
  const residual = r.input("residual", [parameters]);
  const start = r.input("start", [parameters]);
  r.feedback(residual, { base: start, params: r.state("params", [parameters]), scale: r.input("scale", [1]) });
  r.pack(residual, form);
  return r.finish(["slots", "residual"]);
}

function notFinite(): HeddleError {
  return new HeddleError("device-wrong", "This device computed numbers that are not finite");
}
