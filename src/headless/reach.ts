/**
 * Why a relay cannot be reached. A WebSocket that does not open says nothing of it, and follows no redirect, as the standard wants; one
 * HTTP request to the same relay says more.
 */
import { HeddleError, messageIn } from "../base/assert.ts";
import type { Link } from "../net/link.ts";

const ASKED_MS_MAX = 4_000;

const UNKNOWN_SIGNER = "nobody known here has signed its certificate (NODE_EXTRA_CA_CERTS names who else may)";
/** Codes of Node's, as people say them; others are told as Node or Deno words them. */
const CAUSES: Readonly<Record<string, string>> = {
  ENOTFOUND: "its name is not known here",
  EAI_AGAIN: "its name cannot be looked up now",
  ECONNREFUSED: "nobody listens there",
  ECONNRESET: "the connection was cut off",
  EHOSTUNREACH: "there is no way to it from here",
  ENETUNREACH: "there is no way to it from here",
  UND_ERR_CONNECT_TIMEOUT: "nothing answers there",
  UND_ERR_SOCKET: "the connection was cut off",
  ERR_SSL_WRONG_VERSION_NUMBER: "it does not speak TLS; is it http://?",
  CERT_HAS_EXPIRED: "its certificate has expired",
  CERT_NOT_YET_VALID: "its certificate is not valid yet; is this machine's clock right?",
  ERR_TLS_CERT_ALTNAME_INVALID: "its certificate is for another name",
  DEPTH_ZERO_SELF_SIGNED_CERT: UNKNOWN_SIGNER,
  SELF_SIGNED_CERT_IN_CHAIN: UNKNOWN_SIGNER,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: UNKNOWN_SIGNER,
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: UNKNOWN_SIGNER,
};

/** The link that `dial` opens; where it opens none, HeddleError "unreachable" says why as far as it can be found out. */
export async function dialOrSayWhy(relay: string, dial: () => Promise<Link>): Promise<Link> {
  try {
    return await dial();
  } catch (error) {
    throw new HeddleError("unreachable", `Cannot reach ${relay}: ${await reasonOf(relay, error)}`, { cause: error });
  }
}

async function reasonOf(relay: string, dialled: unknown): Promise<string> {
  let response: Response;
  try {
    response = await fetch(`${relay}/api/run?versions=1`, {
      redirect: "manual",
      signal: AbortSignal.timeout(ASKED_MS_MAX),
    });
  } catch (error) {
    const cause = error instanceof Error ? error.cause : undefined;
    const code = cause instanceof Error && "code" in cause ? String(cause.code) : "";
    return CAUSES[code] ?? messageIn(cause ?? error).trim();
  }
  await response.body?.cancel();
  const to = response.headers.get("location");
  if (response.status >= 300 && response.status < 400 && to !== null && URL.canParse(to, relay)) {
    return `it sends its visitors to ${new URL(to, relay).origin}; name that as --relay`;
  }
  return response.ok
    ? `it answers, but opens no WebSocket at /link (${messageIn(dialled)})`
    : `it answers with status ${response.status}${response.status === 404 ? "; is it a relay?" : ""}`;
}
