/**
 * What the relay shows its operator, apart from the public page: `/metrics` for Prometheus, `/healthz` (the process answers)
 * and `/readyz` (this relay serves the run and the store answers, else 503 and a sentence why not). It is served where the operator
 * says (`--metrics-port`), never on the public port: who contributes how much and how the machine is doing is not for everyone.
 * On the operator's socket, and only there, it also operates.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import process from "node:process";
import { HeddleError, messageIn } from "../base/assert.ts";
import type { CoordinatorHost } from "../coordinator/host.ts";
import type { Store } from "../store/store.ts";
import type { Metrics } from "./metrics.ts";
import type { Operations } from "./operations.ts";
import { answerOperator, PROCESS_HEADER } from "./operator-socket.ts";

/** Open connections; a scraper needs one. */
const CONNECTIONS_MAX = 64;
const STALL_MS = 30_000;
/** In a container every relay is process 1; no two begin at the same time. */
const PROCESS = `process ${process.pid}, started ${new Date(performance.timeOrigin).toISOString()}`;

export interface OperatorFaceOptions {
  readonly metrics: Pick<Metrics, "text" | "contentType">;
  /** Why the relay cannot serve the run right now, in one sentence; null when it can. */
  readonly unready: () => Promise<string | null>;
  /** What can be done to the relay by whoever reaches this face; throws HeddleError as long as nothing can. */
  readonly operations?: () => Operations;
}

/** How far a relay has come. */
export type Standing =
  | { readonly type: "loading" }
  /** Waits to hear `leader`, which leads the run that both keep on one NATS. */
  | { readonly type: "waiting"; readonly leader: string }
  | {
      readonly type: "serving";
      readonly host: Pick<CoordinatorHost, "head">;
      readonly store: Store;
      readonly operations: Operations;
    };

/** Throws HeddleError "unreachable" where the run is not served. */
export function operationsIn(standing: Standing): Operations {
  switch (standing.type) {
    case "loading":
      throw new HeddleError("unreachable", "Cannot operate: the run is being loaded; ask again in a moment");
    case "waiting":
      throw new HeddleError(
        "unreachable",
        `Cannot operate: this relay does not lead the run, and has not heard the one that does, ${standing.leader}`,
      );
    default:
      return standing.operations;
  }
}

/** Asks both halves of the store, ledger and blobs; a store that fails is a sentence, too. */
export async function whyUnready(standing: Standing): Promise<string | null> {
  if (standing.type === "loading") {
    return "The run is being loaded";
  }
  if (standing.type === "waiting") {
    return `This relay waits for ${standing.leader}, which leads the run`;
  }
  const { host, store } = standing;
  try {
    await store.log.length();
    const { digest } = host.head();
    return (await store.blobs.size(digest)) === undefined
      ? `The shared base ${digest} is missing from the store`
      : null;
  } catch (error) {
    return messageIn(error);
  }
}

export function createOperatorFace(options: OperatorFaceOptions): Server {
  const server = createServer((request, response) => {
    response.setHeader(PROCESS_HEADER, PROCESS);
    answer(request, response, options).catch((error: unknown) => {
      plain(response, 500, `The relay could not answer: ${messageIn(error)}`);
    });
  });
  server.maxConnections = CONNECTIONS_MAX;
  server.setTimeout(options.operations === undefined ? STALL_MS : 0); // a backup takes as long as it takes
  return server;
}

async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  { metrics, unready, operations }: OperatorFaceOptions,
): Promise<void> {
  if (operations !== undefined && (await answerOperator(request, response, operations))) {
    return;
  }
  if (request.method !== "GET" && request.method !== "HEAD") {
    plain(response, 405, "Only GET is understood here");
    return;
  }
  switch (request.url?.split("?", 1)[0]) {
    case "/metrics":
      response.writeHead(200, { "content-type": metrics.contentType, "cache-control": "no-store" });
      response.end(await metrics.text());
      return;
    case "/healthz":
      plain(response, 200, "ok");
      return;
    case "/readyz": {
      const why = await unready();
      plain(response, why === null ? 200 : 503, why ?? "ready");
      return;
    }
    default:
      plain(response, 404, "There are /metrics, /healthz and /readyz here");
  }
}

function plain(response: ServerResponse, status: number, sentence: string): void {
  if (response.headersSent) {
    response.destroy();
    return;
  }
  response.writeHead(status, { "content-type": "text/plain; charset=utf-8", "cache-control": "no-store" });
  response.end(`${sentence}\n`);
}
