/**
 * The interpreter of plans: the one module the WASM engine loads, built plain and with threads from the same sources. It
 * exports `run`, which executes a plan; `serve`, in which a spawned thread spends its life; and `ropeTable`. It keeps no
 * state of its own and allocates nothing: every address comes from the plan. `src/wasm/compile.ts` writes plans.
 */
import { address, word } from "./math";
import * as op from "./opcodes";
import { barrier, claim } from "./sync";
import { matmulTile, packTile } from "./matmul";
import { attentionDeltaTile, attentionKeyTile, attentionQueryTile, attentionTile, packHeadsTile } from "./attention";
import { adamwTile, addTile, normBlockTile, normTotalTile, swigluBackwardTile, swigluTile } from "./elementwise";
import { muonMixTile, muonMomentumTile, muonScaleTile, muonStepTile } from "./muon";
import { feedbackTile, packChunkTile } from "./pack";
import {
  crossEntropyBackwardTile,
  crossEntropyTile,
  embeddingBackwardTile,
  embeddingTile,
  meanTile,
  rmsNormDgainTile,
  rmsNormDxTile,
  rmsNormTile,
  ropeTile,
  sumRowsTile,
} from "./rows";

export { fuses } from "./math";
export { ropeTable } from "./rows";

/** The first address that the module does not use itself. */
export function heapBegin(): usize {
  return __heap_base;
}

function execute(ins: usize, tile: i32, scratch: usize): void {
  switch (word(ins, 0)) {
    case op.PACK:
      return packTile(ins, tile);
    case op.MATMUL:
      return matmulTile(ins, tile, scratch);
    case op.EMBEDDING:
      return embeddingTile(ins, tile);
    case op.EMBEDDING_BACKWARD:
      return embeddingBackwardTile(ins, tile);
    case op.RMS_NORM:
      return rmsNormTile(ins, tile);
    case op.RMS_NORM_DX:
      return rmsNormDxTile(ins, tile);
    case op.RMS_NORM_DGAIN:
      return rmsNormDgainTile(ins, tile);
    case op.ROPE:
      return ropeTile(ins, tile);
    case op.ATTENTION:
      return attentionTile(ins, tile, scratch);
    case op.ATTENTION_DELTA:
      return attentionDeltaTile(ins, tile);
    case op.ATTENTION_QUERIES:
      return attentionQueryTile(ins, tile, scratch);
    case op.ATTENTION_KEYS:
      return attentionKeyTile(ins, tile, scratch);
    case op.PACK_HEADS:
      return packHeadsTile(ins, tile);
    case op.SWIGLU:
      return swigluTile(ins, tile);
    case op.SWIGLU_BACKWARD:
      return swigluBackwardTile(ins, tile);
    case op.ADD:
      return addTile(ins, tile);
    case op.SUM_ROWS:
      return sumRowsTile(ins, tile);
    case op.CROSS_ENTROPY:
      return crossEntropyTile(ins, tile);
    case op.MEAN:
      return meanTile(ins);
    case op.CROSS_ENTROPY_BACKWARD:
      return crossEntropyBackwardTile(ins, tile);
    case op.NORM_BLOCKS:
      return normBlockTile(ins, tile);
    case op.NORM_TOTAL:
      return normTotalTile(ins);
    case op.ADAMW:
      return adamwTile(ins, tile);
    case op.MUON_MOMENTUM:
      return muonMomentumTile(ins, tile);
    case op.MUON_SCALE:
      return muonScaleTile(ins, tile);
    case op.MUON_MIX:
      return muonMixTile(ins, tile);
    case op.MUON_STEP:
      return muonStepTile(ins, tile);
    case op.FEEDBACK:
      return feedbackTile(ins, tile);
    case op.PACK_CHUNK:
      return packChunkTile(ins, tile, scratch);
    default:
      unreachable();
  }
}

/**
 * Executes a plan as thread `threadIndex` of `threadCount`; thread 0 wakes the others and returns when all have finished.
 * Returns RUN_DONE, or RUN_LOST when a thread has gone.
 */
export function run(plan: usize, threadIndex: i32, threadCount: i32): i32 {
  const count = word(plan, op.PLAN_COUNT);
  const scratch = address(plan, op.PLAN_SCRATCH) + <usize>threadIndex * address(plan, op.PLAN_SCRATCH_BYTES);
  let ins = plan + op.PLAN_HEADER_BYTES;
  if (ASC_FEATURE_THREADS) {
    if (threadCount > 1) {
      const control = address(plan, op.PLAN_CONTROL);
      if (threadIndex == 0) {
        store<usize>(control + op.CONTROL_PLAN, plan);
        atomic.add<i32>(control + op.CONTROL_EPOCH, 1);
        atomic.notify(control + op.CONTROL_EPOCH, threadCount);
      }
      for (let i = 0; i < count; i++) {
        const tiles = word(ins, 1);
        for (let tile = claim(control); tile < tiles; tile = claim(control)) execute(ins, tile, scratch);
        if (barrier(control, threadIndex, threadCount) == op.RUN_LOST) return op.RUN_LOST;
        ins += op.INSTRUCTION_BYTES;
      }
      return op.RUN_DONE;
    }
  }
  for (let i = 0; i < count; i++) {
    const tiles = word(ins, 1);
    for (let tile = 0; tile < tiles; tile++) execute(ins, tile, scratch);
    ins += op.INSTRUCTION_BYTES;
  }
  return op.RUN_DONE;
}

/** The life of a spawned thread: waits for runs and takes part in them, until the plan of a run is 0. */
export function serve(control: usize, threadIndex: i32, threadCount: i32): void {
  if (ASC_FEATURE_THREADS) {
    let seen = 0;
    while (true) {
      while (atomic.load<i32>(control + op.CONTROL_EPOCH) == seen) {
        atomic.wait<i32>(control + op.CONTROL_EPOCH, seen, -1);
      }
      seen = atomic.load<i32>(control + op.CONTROL_EPOCH);
      const plan = load<usize>(control + op.CONTROL_PLAN);
      if (plan == 0) return;
      run(plan, threadIndex, threadCount);
    }
  }
}
