/**
 * The operator's way into a relay that runs: HTTP on a Unix socket in the relay's folder, which only the owner of the folder
 * can open (mode 0600), so that no password is needed. Both ends are here: what the relay answers, and the operations as
 * `npm run admin` sees them. The socket also has what the operator's port has: `/metrics`, `/healthz` and `/readyz`.
 */
import { lstat, mkdir, rm } from "node:fs/promises";
import { request, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { join } from "node:path";
import process from "node:process";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { HeddleError, type ErrorCode } from "../base/assert.ts";
import { isDigest, type Bytes, type ContributorId } from "../base/bytes.ts";
import type { OperatorCommand } from "../coordinator/live.ts";
import { readLedger, writeLedger } from "../protocol/ledger-file.ts";
import type { BackupReport } from "./backup.ts";
import type { Operations, Status } from "./operations.ts";
import { isCheckpoints, type PruneOptions, type PruneReport } from "./prune.ts";

/** Header of every answer to an operator: names the process that answers, unlike any before it in this place. */
export const PROCESS_HEADER = "heddle-process";

const SOCKET_FILE = "operator.sock";
/** What fits the address of a Unix socket on every system. */
const SOCKET_PATH_BYTES_MAX = 103;
/** A merge of a large model may keep a relay busy for seconds; one that was stopped never answers. */
const SILENCE_MS = 20_000;
/** A request's body: a command, or a path. */
const BODY_BYTES_MAX = 16_384;

/**
 * Listens on the socket of the relay's folder `dir`, which is made when absent; a file in its place at which nobody answers is
 * left over. Throws HeddleError "store" when that cannot be, or not for the owner alone.
 */
export async function listenOnSocket(server: Server, dir: string): Promise<void> {
  const path = checkedPath(dir);
  if ((await connectOperations(dir)) !== null) {
    const sentence = `Cannot listen on the operator's socket "${path}": another relay does; give each one its own --dir`;
    throw new HeddleError("store", sentence);
  }
  try {
    await mkdir(dir, { recursive: true });
    await rm(path, { force: true });
    await bind(server, path);
  } catch (error) {
    throw new HeddleError("store", `Cannot listen on the operator's socket "${path}": ${String(error)}`, {
      cause: error,
    });
  }
  const { mode } = await lstat(path);
  if ((mode & 0o077) !== 0) {
    server.close();
    throw new HeddleError("store", `Cannot listen on the operator's socket "${path}": others could open it`);
  }
}

function bind(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    const umask = process.umask(0o177); // the socket is made within the call to listen, and never open to others
    try {
      server.listen(path, resolve);
    } finally {
      process.umask(umask);
    }
  });
}

function checkedPath(dir: string): string {
  const path = join(dir, SOCKET_FILE);
  const length = Buffer.byteLength(path);
  if (length > SOCKET_PATH_BYTES_MAX) {
    const sentence = `Cannot use an operator's socket: its path "${path}" has ${length} bytes, need at most ${SOCKET_PATH_BYTES_MAX}`;
    throw new HeddleError("limit", sentence);
  }
  return path;
}

/** Answers an operator's request, also why `operations` throws; resolves to false when it is none. */
export async function answerOperator(
  incoming: IncomingMessage,
  response: ServerResponse,
  operations: () => Operations,
): Promise<boolean> {
  const asked = `${incoming.method} ${incoming.url}`;
  try {
    if (asked === "GET /ledger") {
      await sendLedger(operations(), response);
      return true;
    }
    const value = await carryOut(asked, () => readPieces(incoming), operations);
    if (value !== null) {
      answer(response, 200, value);
    }
    return value !== null;
  } catch (error) {
    if (!(error instanceof HeddleError)) {
      throw error;
    }
    answer(response, 400, { code: error.code, error: error.message });
    return true;
  }
}

/**
 * Does what is asked for by method and path, and resolves to the answer; null for what is not known. `body` gives the request's JSON.
 * Throws HeddleError where it cannot be done.
 */
export async function carryOut(
  asked: string,
  body: () => string | Promise<string>,
  operations: () => Operations,
): Promise<object | null> {
  switch (asked) {
    case "GET /status":
      return operations().status();
    case "POST /operate":
      await operations().operate(readCommand(readBody(await body())));
      return {};
    case "POST /backup":
      return operations().backUp(readText(readBody(await body()), "to"));
    case "POST /prune":
      return operations().prune(readPruneOptions(readBody(await body())));
    default:
      return null;
  }
}

async function sendLedger(operations: Operations, response: ServerResponse): Promise<void> {
  const entries = operations.entries(); // or a refusal, which is another answer
  response.writeHead(200, { "content-type": "application/octet-stream" });
  await pipeline(Readable.from(writeLedger(entries)), response).catch(() => response.destroy());
}

function answer(response: ServerResponse, status: number, value: object): void {
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify(value));
}

type Body = Readonly<Record<string, unknown>>;

function readBody(text: string): Body {
  const value: unknown = parse(text);
  if (typeof value !== "object" || value === null) {
    throw new HeddleError("bad-input", "Cannot read the request: need a JSON object");
  }
  return value as Body;
}

async function readPieces(incoming: AsyncIterable<Uint8Array>): Promise<string> {
  const pieces: Uint8Array[] = [];
  let bytes = 0;
  for await (const piece of incoming) {
    bytes += piece.length;
    if (bytes > BODY_BYTES_MAX) {
      throw new HeddleError("limit", `Cannot read the request: it has more than ${BODY_BYTES_MAX} bytes`);
    }
    pieces.push(piece);
  }
  return Buffer.concat(pieces).toString();
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new HeddleError("bad-input", "Cannot read the request: need JSON", { cause: error });
  }
}

function readText(body: Body, field: string): string {
  const value = body[field];
  if (typeof value !== "string") {
    throw new HeddleError("bad-input", `Cannot read the request: need the text "${field}"`);
  }
  return value;
}

function readCommand(body: Body): OperatorCommand {
  const type = readText(body, "type");
  switch (type) {
    case "pause":
    case "resume":
    case "drain":
      return { type };
    case "ban":
      return { type, contributor: readContributor(body), why: readText(body, "why") };
    case "unban":
      return { type, contributor: readContributor(body) };
    default:
      throw new HeddleError("bad-input", `Cannot operate: there is no command "${type}"`);
  }
}

function readPruneOptions({ checkpoints, dryRun }: Body): PruneOptions {
  if (!isCheckpoints(checkpoints) || typeof dryRun !== "boolean") {
    throw new HeddleError("bad-input", "Cannot read the request: need a number of checkpoints and whether to delete");
  }
  return { checkpoints, dryRun };
}

function readContributor(body: Body): ContributorId {
  const { contributor } = body;
  if (!isDigest(contributor)) {
    throw new HeddleError("bad-input", "Cannot read the request: a contributor is named by 64 hexadecimal digits");
  }
  return contributor as string as ContributorId;
}

export interface RunningOperations extends Operations {
  /** The process that answered, as it names itself. */
  readonly process: string;
}

/** The operations of the relay that runs in the folder `dir`; null when none listens there. */
export async function connectOperations(dir: string): Promise<RunningOperations | null> {
  const path = join(dir, SOCKET_FILE);
  if (Buffer.byteLength(path) > SOCKET_PATH_BYTES_MAX) {
    return null;
  }
  let healthy: IncomingMessage;
  try {
    healthy = (await call(path, "GET", "/healthz", { silenceMs: SILENCE_MS })).resume();
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    if (code === "ENOENT" || code === "ECONNREFUSED" || code === "ENOTSOCK") {
      return null;
    }
    throw new HeddleError("unreachable", `Cannot reach the relay in "${dir}": ${String(error)}`, { cause: error });
  }
  const post = async (address: string, body: object): Promise<unknown> =>
    readAnswer(await reach(path, "POST", address, body));
  return {
    process: String(healthy.headers[PROCESS_HEADER] ?? "a process that does not say which"),
    status: async () => (await readAnswer(await reach(path, "GET", "/status"))) as Status,
    entries: () => readEntries(path),
    operate: async (command) => {
      await post("/operate", command);
    },
    backUp: async (to) => (await post("/backup", { to })) as BackupReport,
    prune: async (options) => (await post("/prune", options)) as PruneReport,
    close: async () => undefined,
  };
}

async function* readEntries(path: string): AsyncGenerator<Bytes> {
  const incoming = await reach(path, "GET", "/ledger");
  await throwRefusal(incoming);
  try {
    yield* readLedger(incoming);
  } catch (error) {
    if (error instanceof HeddleError) {
      throw error;
    }
    throw new HeddleError("unreachable", `The relay ended in the middle of its ledger: ${String(error)}`, {
      cause: error,
    });
  }
}

async function readAnswer(incoming: IncomingMessage): Promise<unknown> {
  await throwRefusal(incoming);
  return JSON.parse(await textOf(incoming));
}

/** Throws what the relay says where it did not do what it was asked for. */
async function throwRefusal(incoming: IncomingMessage): Promise<void> {
  if (incoming.statusCode === 200) {
    return;
  }
  const text = await textOf(incoming);
  if (incoming.statusCode === 400) {
    const { code, error } = JSON.parse(text) as { readonly code: ErrorCode; readonly error: string };
    throw new HeddleError(code, error);
  }
  throw new HeddleError("unreachable", `The relay answered: ${text.trim()}`);
}

async function textOf(incoming: IncomingMessage): Promise<string> {
  const pieces: Uint8Array[] = [];
  for await (const piece of incoming) {
    pieces.push(piece as Uint8Array); // from our own relay, whose answers are as large as its status
  }
  return Buffer.concat(pieces).toString();
}

async function reach(path: string, method: string, address: string, body?: object): Promise<IncomingMessage> {
  try {
    return await call(path, method, address, { body });
  } catch (error) {
    throw new HeddleError("unreachable", `The relay ended before it answered: ${String(error)}`, { cause: error });
  }
}

interface CallOptions {
  readonly body?: object | undefined;
  /** How long the relay may say nothing; 0: for ever, as a backup takes as long as it takes. */
  readonly silenceMs?: number;
}

function call(
  path: string,
  method: string,
  address: string,
  { body, silenceMs = 0 }: CallOptions,
): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const sent = request({ socketPath: path, method, path: address, agent: false, timeout: silenceMs }, resolve);
    sent.once("timeout", () => sent.destroy(new Error("it does not answer")));
    sent.once("error", reject);
    sent.end(body === undefined ? undefined : JSON.stringify(body));
  });
}
