/** Every target of `npm run fuzz`. */
import type { Target } from "./fuzz.ts";
import { BUSES } from "./buses.ts";
import { PEERS } from "./peers.ts";
import { READERS } from "./readers.ts";
import { SESSIONS } from "./sessions.ts";
import { SOCKETS } from "./sockets.ts";

export const TARGETS: readonly Target[] = [...READERS, ...PEERS, ...BUSES, ...SESSIONS, ...SOCKETS];
