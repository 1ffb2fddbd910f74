/** A connection to the servers of a NATS address: it moves to another server when its own goes, and never gives up. */
import { connect, errors, type NatsConnection } from "@nats-io/transport-node";
import { HeddleError } from "../base/assert.ts";
import type { NatsAddress } from "./nats-address.ts";

const CONNECT_MS_MAX = 5_000;
const RECONNECT_MS = 100;
const PING_MS = 5_000;

/** Throws HeddleError "store", `Cannot ${action}: …`, when no server answers or the login is refused. */
export async function connectNats({ servers, tls, login }: NatsAddress, action: string): Promise<NatsConnection> {
  try {
    return await connect({
      servers: [...servers],
      ...login,
      ...(tls ? { tls: {} } : {}),
      name: "heddle",
      timeout: CONNECT_MS_MAX,
      maxReconnectAttempts: -1,
      reconnectTimeWait: RECONNECT_MS,
      pingInterval: PING_MS,
      noAsyncTraces: true,
    });
  } catch (error) {
    const why = error instanceof errors.AuthorizationError ? "the login is refused" : "no server answers";
    throw new HeddleError("store", `Cannot ${action}: ${why}`, { cause: error });
  }
}
