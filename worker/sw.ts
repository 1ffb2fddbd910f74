/**
 * The service worker of the contributor page. It keeps the shell (page, styles, first script, icons) so that the page opens
 * offline, other built files as they are used, and whole blobs up to a limit. It never touches the run's live record or
 * links, and never replaces a running page: a new version waits until the person reloads. The build writes the list of
 * files in place of SHELL_FILES and names this version by their digest.
 */

/** Written by the build (vite.config.ts). */
declare const SHELL_FILES: readonly string[];
declare const SHELL_VERSION: string;

/** Only the parts of the service worker's scope that are used here; the DOM library has none. */
interface WorkerScope {
  readonly clients: { claim(): Promise<void> };
  skipWaiting(): Promise<void>;
  addEventListener(type: "install" | "activate", listener: (event: ExtendableEvent) => void): void;
  addEventListener(type: "message", listener: (event: MessageEvent<unknown>) => void): void;
  addEventListener(type: "fetch", listener: (event: FetchEvent) => void): void;
}
interface ExtendableEvent extends Event {
  waitUntil(work: Promise<unknown>): void;
}
interface FetchEvent extends ExtendableEvent {
  readonly request: Request;
  respondWith(response: Promise<Response>): void;
}

const scope = self as unknown as WorkerScope;
const SHELL = `heddle-shell-${SHELL_VERSION}`;
const BLOBS = "heddle-blobs";
/** Sum of cached blobs; the oldest go first. */
const BLOB_CACHE_BYTES_MAX = 64 * 1_048_576;

scope.addEventListener("install", (event) => {
  event.waitUntil(caches.open(SHELL).then((cache) => cache.addAll(["/", ...SHELL_FILES])));
});

scope.addEventListener("activate", (event) => {
  event.waitUntil(removeOldShells().then(() => scope.clients.claim()));
});

scope.addEventListener("message", ({ data }) => {
  if (typeof data === "object" && data !== null && (data as { type?: unknown }).type === "take-over") {
    void scope.skipWaiting();
  }
});

scope.addEventListener("fetch", (event) => {
  const { request } = event;
  const url = new URL(request.url);
  if (request.method !== "GET" || url.origin !== location.origin || request.headers.has("range")) {
    return;
  }
  if (url.pathname === "/") {
    event.respondWith(freshPage(request));
  } else if (url.pathname.startsWith("/blob/")) {
    event.respondWith(keptBlob(request));
  } else if (url.pathname.startsWith("/assets/") || SHELL_FILES.includes(url.pathname)) {
    event.respondWith(keptFile(request));
  }
});

/** The page from the relay, so that an update is seen at once; from the cache when the relay cannot be reached. */
async function freshPage(request: Request): Promise<Response> {
  try {
    return await fetch(request);
  } catch (error) {
    const kept = await (await caches.open(SHELL)).match("/");
    if (kept === undefined) {
      throw error;
    }
    return kept;
  }
}

/** Built files never change under their name. */
async function keptFile(request: Request): Promise<Response> {
  const cache = await caches.open(SHELL);
  const kept = await cache.match(request, { ignoreSearch: true });
  if (kept !== undefined) {
    return kept;
  }
  const response = await fetch(request);
  if (response.status === 200) {
    await cache.put(request, response.clone());
  }
  return response;
}

/** Blobs are named by their digest and checked by whoever asked for them. */
async function keptBlob(request: Request): Promise<Response> {
  const cache = await caches.open(BLOBS);
  const kept = await cache.match(request);
  if (kept !== undefined) {
    return kept;
  }
  const response = await fetch(request);
  const bytes = Number(response.headers.get("content-length") ?? Number.POSITIVE_INFINITY);
  if (response.status === 200 && bytes <= BLOB_CACHE_BYTES_MAX / 4) {
    await cache.put(request, response.clone());
    await trim(cache);
  }
  return response;
}

async function trim(cache: Cache): Promise<void> {
  const requests = await cache.keys();
  let total = 0;
  // Keys come in the order in which they were put; the newest are kept.
  for (const request of requests.toReversed()) {
    const response = await cache.match(request);
    total += Number(response?.headers.get("content-length") ?? 0);
    if (total > BLOB_CACHE_BYTES_MAX) {
      await cache.delete(request);
    }
  }
}

async function removeOldShells(): Promise<void> {
  const names = await caches.keys();
  await Promise.all(
    names.filter((name) => name.startsWith("heddle-shell-") && name !== SHELL).map((name) => caches.delete(name)),
  );
}
