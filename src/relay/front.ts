/**
 * Everything of a relay that contributors reach: the page and blobs over HTTP, links over WebSocket and WebRTC. What is behind
 * it, its source, changes when the relay takes the lead of its run; the ports stay open meanwhile.
 */
import { createBuckets, type Rate } from "../base/bucket.ts";
import type { Digest } from "../base/bytes.ts";
import type { AttachArrival } from "../coordinator/door.ts";
import { PREFIXES_MAX } from "../coordinator/gate.ts";
import { BlobPieces } from "../net/blob-pieces.ts";
import type { Attach, Lane } from "../net/link.ts";
import { createRtcAnswerer } from "../net/rtc-node.ts";
import { serveBlob } from "../net/serve-blob.ts";
import { acceptWebSockets, type AcceptWebSocketsOptions } from "../net/ws-server.ts";
import type { RunView, VersionView } from "../protocol/run-view.ts";
import type { Store } from "../store/store.ts";
import type { RelayConfig } from "./config.ts";
import { createHttpFace, listen } from "./http.ts";
import { prefixOfRequest } from "./prefix.ts";

/**
 * Requests of one network prefix for blobs, one for 4 MiB, for pages of the ledger, and for the record of the run. Whoever has a whole
 * blob read for the digests of its pieces is charged for as many as fetch it.
 */
export const REQUEST_RATE: Rate = { perS: 100, burst: 3_000 };
const REQUEST_BYTES = 4 * 1_048_576;

/** What serves the run: the coordinator of this process, or the way to another's. */
export interface Source {
  /** Attaches a contributor's first link. */
  readonly attach: AttachArrival;
  view(): RunView;
  /** Whether a blob belongs to the public record. */
  isPublic(digest: Digest): boolean | Promise<boolean>;
  /** Adds bytes that were downloaded beside the links to the record. */
  countDownload(bytes: number): void;
}

export interface FrontOptions {
  readonly config: Pick<RelayConfig, "host" | "port" | "rtcPort" | "proxyHeader" | "prefixShare">;
  /** Folder of the built page. */
  readonly dist: string;
  readonly store: Store;
  readonly source: Source;
  /** Bytes of blobs that went out over HTTP. */
  readonly onDownload: (bytes: number) => void;
}

export interface Front {
  readonly port: number;
  /** From now on `source` serves the run; links of the one before stay with it, which has to end them. */
  turnTo(source: Source): void;
  /** Tells everyone who looks at the page about a new version and about the changed run. */
  announce(version: VersionView | null): void;
  /** Answers an offer of a WebRTC link. */
  answerRtc(sdp: string, attach: Attach): Promise<string>;
  /** Links that are open here, by lane; a session whose updates go over WebRTC counts there. */
  lanes(): Readonly<Record<Lane, number>>;
  /** Stops listening and takes no more links; those that are open stay, until `close`. */
  shut(reason: string): void;
  /** Closes every link with `reason`, and everything that is open. */
  close(reason: string): Promise<void>;
}

/** Throws HeddleError "bad-input" with a sentence when the port cannot be had. */
export async function openFront(options: FrontOptions): Promise<Front> {
  const { config, dist, store, onDownload } = options;
  let { source } = options;
  let shutReason: string | null = null;
  const rtc = await createRtcAnswerer(config.rtcPort === 0 ? {} : { port: config.rtcPort });
  const requests = createBuckets(REQUEST_RATE, PREFIXES_MAX);
  const { blobs } = store;
  const pieces = new BlobPieces(blobs);
  const face = createHttpFace({
    proxyHeader: config.proxyHeader,
    prefixShare: config.prefixShare,
    waitMs: (prefix) => (prefix === null ? 0 : requests.take(prefix, performance.now())),
    dist,
    view: () => source.view(),
    log: store.log,
    blob: (request, response, name) => {
      const prefix = prefixOfRequest(request, config.proxyHeader);
      void serveBlob({
        request,
        response,
        name,
        blobs,
        pieces,
        isPublic: (wanted) => source.isPublic(wanted),
        onRead: (bytes) => {
          if (prefix !== null) {
            requests.owe(prefix, Math.ceil(bytes / REQUEST_BYTES), performance.now());
          }
        },
        onSent: (bytes) => {
          onDownload(bytes);
          if (request.url?.endsWith("?observer") !== true) {
            source.countDownload(bytes);
          }
        },
      });
    },
  });
  const attach: AcceptWebSocketsOptions["attach"] = (link, { request, hold }) => {
    if (shutReason === null) {
      return source.attach(link, { prefix: prefixOfRequest(request, config.proxyHeader), hold });
    }
    link.close(shutReason);
    return { message: () => undefined, closed: () => undefined };
  };
  const links = acceptWebSockets({ server: face.server, attach });
  const close = async (reason: string): Promise<void> => {
    await links.close(reason);
    await face.close();
    await rtc.close(reason);
  };
  let port: number;
  try {
    port = await listen(face.server, config.port, config.host);
  } catch (error) {
    await close("");
    throw error;
  }
  return {
    port,
    turnTo: (next) => {
      source = next;
      face.announce(null);
    },
    announce: (version) => face.announce(version),
    answerRtc: (sdp, take) => rtc.answer(sdp, take),
    lanes: () => {
      const second = rtc.connections();
      return { memory: 0, ws: Math.max(0, links.sessions() - second), rtc: second };
    },
    shut: (reason) => {
      shutReason = reason;
      face.server.close();
    },
    close,
  };
}
