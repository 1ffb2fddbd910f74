/**
 * Threads: claiming tiles, the barrier between instructions, and waiting for the next run. In the plain build all of it
 * folds away at compile time. Which thread computes a tile does not change the tile, so tiles go to whoever is free.
 */
import { CONTROL_ARRIVED, CONTROL_GENERATION, CONTROL_NEXT, RUN_DONE, RUN_LOST } from "./opcodes";

/** Looks at the barrier this often before it sleeps: about 20 µs, longer than most waits and shorter than a sleep. */
const SPINS: i32 = 20000;
/** The thread that called `run` gives the others this long to finish one instruction. */
const LOST_NS: i64 = 60000000000;

/** The next tile of the current instruction for this thread. */
export function claim(control: usize): i32 {
  return atomic.add<i32>(control + CONTROL_NEXT, 1);
}

/** Returns once all threads have arrived, RUN_LOST when one does not come. The last to arrive frees the tile counter. */
export function barrier(control: usize, threadIndex: i32, threadCount: i32): i32 {
  const generation = atomic.load<i32>(control + CONTROL_GENERATION);
  if (atomic.add<i32>(control + CONTROL_ARRIVED, 1) == threadCount - 1) {
    atomic.store<i32>(control + CONTROL_ARRIVED, 0);
    atomic.store<i32>(control + CONTROL_NEXT, 0);
    atomic.add<i32>(control + CONTROL_GENERATION, 1);
    atomic.notify(control + CONTROL_GENERATION, threadCount);
    return RUN_DONE;
  }
  for (let i = 0; i < SPINS; i++) {
    if (atomic.load<i32>(control + CONTROL_GENERATION) != generation) return RUN_DONE;
  }
  while (atomic.load<i32>(control + CONTROL_GENERATION) == generation) {
    const limit: i64 = threadIndex == 0 ? LOST_NS : -1;
    if (atomic.wait<i32>(control + CONTROL_GENERATION, generation, limit) == AtomicWaitResult.TIMED_OUT)
      return RUN_LOST;
  }
  return RUN_DONE;
}
