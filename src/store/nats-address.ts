/** Where a store on NATS is: `nats://[user:password@|token@]host[:port][,host[:port]…][/name][?replicas=N]`, or `tls://…`. */
import { HeddleError } from "../base/assert.ts";

export interface NatsAddress {
  /** host:port of servers of one cluster; the others are learned from them. */
  readonly servers: readonly string[];
  readonly tls: boolean;
  readonly login: { readonly user: string; readonly pass: string } | { readonly token: string } | null;
  /** Of the store: its streams begin with it, so that several runs can share a cluster. */
  readonly name: string;
  /** Copies of every stream; null: as many as the cluster can have, up to 3. */
  readonly replicas: number | null;
  /** For people, without the login. */
  readonly shown: string;
}

const ADDRESS_CHARS_MAX = 2_000;
const SERVERS_MAX = 16;
/** JetStream's own limit. */
const REPLICAS_MAX = 5;
const FORM = "nats://[user:password@]host[:port][,host[:port]…][/name][?replicas=N]";

const ADDRESS = /^(nats|tls):\/\/(?:([^@/?#]+)@)?([^@/?#]+)(?:\/([^/?#]*))?(?:\?replicas=([^&#]*))?$/;
const SERVER = /^([A-Za-z0-9._-]+|\[[0-9a-fA-F:.]+\])(?::(\d{1,5}))?$/;
const NAME = /^[a-z0-9][a-z0-9_-]{0,63}$/;

/** Throws HeddleError "bad-input" with a sentence, which never repeats a password. */
export function parseNatsAddress(text: string): NatsAddress {
  const found = text.length > ADDRESS_CHARS_MAX ? null : ADDRESS.exec(text);
  if (found === null) {
    throw refusal(`it must have the form ${FORM}`);
  }
  const [, scheme = "", login, hosts = "", path = "", replicas] = found;
  const servers = hosts.split(",").map(checkServer);
  if (servers.length > SERVERS_MAX) {
    throw refusal(`got ${servers.length} servers, need at most ${SERVERS_MAX}`);
  }
  const name = path === "" ? "heddle" : path;
  if (!NAME.test(name)) {
    throw refusal(`got the store's name "${name}", need up to 64 of a-z, 0-9, "-" and "_"`);
  }
  if (replicas !== undefined && !(/^\d$/.test(replicas) && Number(replicas) >= 1 && Number(replicas) <= REPLICAS_MAX)) {
    throw refusal(`got replicas=${replicas}, need 1 to ${REPLICAS_MAX}`);
  }
  return {
    servers,
    tls: scheme === "tls",
    login: login === undefined ? null : parseLogin(login),
    name,
    replicas: replicas === undefined ? null : Number(replicas),
    shown: `${scheme}://${servers.join()}/${name}`,
  };
}

function checkServer(text: string): string {
  const found = SERVER.exec(text);
  const port = Number(found?.[2] ?? 4222);
  if (found === null || port < 1 || port > 65_535) {
    throw refusal(`got the server "${text}", need host or host:port`);
  }
  return `${found[1]}:${port}`;
}

function parseLogin(text: string): NonNullable<NatsAddress["login"]> {
  const at = text.indexOf(":");
  try {
    return at === -1
      ? { token: decodeURIComponent(text) }
      : { user: decodeURIComponent(text.slice(0, at)), pass: decodeURIComponent(text.slice(at + 1)) };
  } catch (error) {
    throw refusal("the login's percent signs do not encode characters", error);
  }
}

function refusal(reason: string, cause?: unknown): HeddleError {
  return new HeddleError("bad-input", `Cannot use the NATS address: ${reason}`, { cause });
}
