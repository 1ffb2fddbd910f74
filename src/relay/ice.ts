/**
 * The STUN and TURN servers that a relay hands to contributors. A TURN server takes either one name and password for all, or
 * credentials that end by themselves, made here from a secret that the TURN server shares and nobody else sees: the username is
 * when it ends and who got it, the credential its HMAC-SHA1 (draft-uberti-behave-turn-rest-00; coturn's `use-auth-secret`).
 */
import { createHmac } from "node:crypto";
import { readFile } from "node:fs/promises";
import { HeddleError, messageIn } from "../base/assert.ts";
import type { ContributorId } from "../base/bytes.ts";
import type { Clock } from "../base/clock.ts";
import { ICE_RENEW_MS } from "../coordinator/peer.ts";
import { checked } from "../protocol/fields.ts";
import { iceServerReader, parseIceUrl, type IceServer } from "../protocol/ice.ts";
import { ICE_SERVERS_MAX } from "../protocol/limits.ts";

/** A username and credential from the shared secret are good for this long: until they are renewed, and for one more dial. */
const LIFETIME_MS = 2 * ICE_RENEW_MS;
/** Digits of a contributor's id in a username: enough to find it in the TURN server's log. */
const NAME_DIGITS = 16;

export interface IceConfig {
  /** TURN servers without a username get one from the shared secret. */
  readonly servers: readonly IceServer[];
  /** File with the secret; null where none is needed. */
  readonly secretFile: string | null;
}

/**
 * Reads the addresses of `--ice`: stun:host:port, turn:host:port, or turn:user:password@host:port with what is special in both
 * percent-encoded. Throws HeddleError "bad-input" for one that cannot be used, and for more than contributors take.
 */
export function readIce(urls: readonly string[], secretFile: string | null): IceConfig {
  if (urls.length > ICE_SERVERS_MAX) {
    throw new HeddleError(
      "bad-input",
      `Cannot use --ice ${urls.length} times: at most ${ICE_SERVERS_MAX} are handed out`,
    );
  }
  const servers = urls.map(readServer);
  const secret = servers.some(needsSecret);
  if (secret && secretFile === null) {
    const how = "it needs turn:user:password@host, or --turn-secret with the secret that the server shares";
    throw new HeddleError("bad-input", `Cannot use --ice with a TURN server that has no password: ${how}`);
  }
  if (!secret && secretFile !== null) {
    throw new HeddleError("bad-input", "Cannot use --turn-secret: no --ice names a TURN server without a password");
  }
  return { servers, secretFile };
}

/** What is handed to a contributor now. Rejects with HeddleError "bad-input" when the secret cannot be read. */
export async function openIce(
  { servers, secretFile }: IceConfig,
  clock: Clock,
): Promise<(contributor: ContributorId) => readonly IceServer[]> {
  const secret = secretFile === null ? "" : await readSecret(secretFile);
  return (contributor) => {
    const endS = Math.floor((clock.nowMs() + LIFETIME_MS) / 1_000);
    const username = `${endS}:${contributor.slice(0, NAME_DIGITS)}`;
    const credential = createHmac("sha1", secret).update(username).digest("base64");
    return servers.map((server) => (needsSecret(server) ? { ...server, username, credential } : server));
  };
}

function readServer(given: string): IceServer {
  const wrong = (why: string): HeddleError => {
    const shown = given.replace(/:[^:@]*@/, ":…@"); // a password does not belong into a message
    return new HeddleError("bad-input", `Cannot use --ice "${shown}": ${why}`);
  };
  const login = /^(turns?:)([^:]*):(.*)@([^@]*)$/i.exec(given);
  if (login === null) {
    if (parseIceUrl(given) === null) {
      throw wrong("it must be stun:host:port, turn:host:port or turn:user:password@host:port");
    }
    return { url: given, username: null, credential: null };
  }
  const [, scheme = "", user = "", password = "", rest = ""] = login;
  const read = checked(() => {
    const [username, credential] = [decodeURIComponent(user), decodeURIComponent(password)];
    return iceServerReader({ url: `${scheme}${rest}`, username, credential }, "it");
  });
  if (!read.ok) {
    throw wrong(read.detail);
  }
  return read.value;
}

function needsSecret({ url, username }: IceServer): boolean {
  return username === null && parseIceUrl(url)?.scheme !== "stun";
}

async function readSecret(path: string): Promise<string> {
  const secret = await readFile(path, "utf8").catch((error: unknown) => {
    throw new HeddleError("bad-input", `Cannot read --turn-secret "${path}": ${messageIn(error)}`, { cause: error });
  });
  if (secret.trim() === "") {
    throw new HeddleError("bad-input", `Cannot use --turn-secret "${path}": the file is empty`);
  }
  return secret.trim();
}
