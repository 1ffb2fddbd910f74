/**
 * Addresses of STUN and TURN servers (RFC 7064, RFC 7065), which a relay hands to contributors for their WebRTC links: what is a
 * sound one, and how many there may be.
 */
import { FieldError, list, nullable, record, text, type Reader } from "./fields.ts";
import { ICE_CHARS_MAX, ICE_SERVERS_MAX } from "./limits.ts";

export interface IceServer {
  /** stun:host:port, turn:host:port, turns:host:port; TURN may end in ?transport=udp or ?transport=tcp. */
  readonly url: string;
  /** Of a TURN server, which takes nobody without; null for STUN. */
  readonly username: string | null;
  readonly credential: string | null;
}

export interface IceAddress {
  readonly scheme: "stun" | "turn" | "turns";
  /** A name or an address; an IPv6 address without its brackets. */
  readonly host: string;
  readonly port: number;
  /** How the server itself is reached. */
  readonly transport: "udp" | "tcp";
}

const ADDRESS =
  /^(stun|turns?):(?:\[([0-9a-f:.]{2,45})\]|([a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?))(?::(\d{1,5}))?(?:\?transport=(udp|tcp))?$/i;

/** The parts of an address, or null where it is none. Ports are 3478, for turns 5349, unless said. */
export function parseIceUrl(url: string): IceAddress | null {
  const match = ADDRESS.exec(url);
  if (match === null) {
    return null;
  }
  const [, named = "", ipv6, name = "", digits, means] = match;
  const scheme = named.toLowerCase() as IceAddress["scheme"];
  const port = digits === undefined ? (scheme === "turns" ? 5_349 : 3_478) : Number(digits);
  if (port < 1 || port > 65_535 || (scheme === "stun" && means !== undefined)) {
    return null;
  }
  const transport = means?.toLowerCase() ?? (scheme === "turns" ? "tcp" : "udp");
  return { scheme, host: ipv6 ?? name, port, transport: transport as IceAddress["transport"] };
}

const fields: Reader<IceServer> = record<IceServer>({
  url: text(ICE_CHARS_MAX),
  username: nullable(text(ICE_CHARS_MAX, { charsMin: 1 })),
  credential: nullable(text(ICE_CHARS_MAX, { charsMin: 1 })),
});

/** A TURN server has a username and a credential, a STUN server has neither. */
export const iceServerReader: Reader<IceServer> = (value, path) => {
  const server = fields(value, path);
  const address = parseIceUrl(server.url);
  if (address === null) {
    throw new FieldError(`Cannot read ${path}.url: need stun:host:port, turn:host:port or turns:host:port`);
  }
  const secrets = [server.username, server.credential].filter((one) => one !== null).length;
  if (secrets !== (address.scheme === "stun" ? 0 : 2)) {
    throw new FieldError(`Cannot read ${path}: TURN needs a username and a credential, STUN none`);
  }
  return server;
};

export const iceServersReader: Reader<readonly IceServer[]> = list(iceServerReader, 1, ICE_SERVERS_MAX);
