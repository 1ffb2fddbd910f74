/**
 * The service worker of the contributor page. It keeps the shell (page, styles, first script, icons) so that the page opens
 * offline, and other built files as they are used. It never touches the run's live record, blobs or links, and never replaces a
 * running page: a new version waits until the person reloads. The build writes the list of files in place of SHELL_FILES and
 * names this version by their digest.
 */

/** Written by the build (vite.config.ts). */
declare const SHELL_FILES: readonly string[];
declare const SHELL_VERSION: string;

/** Only the parts of the service worker's scope that are used here; the DOM library has none. */
interface WorkerScope {
  readonly clients: { claim(): Promise<void> };
  readonly registration: { readonly waiting: object | null };
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
/** How long the page waits for the relay before the kept one opens. */
const PAGE_MS_MAX = 4_000;
/** The same while a newer version waits: the kept page is an old one then, and the relay may not have all of its files any more. */
const OLD_PAGE_MS_MAX = 20_000;
/** Of versions that kept the model's blobs here, up to 2026-11. */
const FORMER_CACHE = "heddle-blobs";

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
  if (request.method !== "GET" || url.origin !== location.origin) {
    return;
  }
  if (url.pathname === "/") {
    event.respondWith(freshPage(request));
  } else if (url.pathname.startsWith("/assets/") || SHELL_FILES.includes(url.pathname)) {
    event.respondWith(keptFile(event));
  }
});

/** The page from the relay, so that an update is seen at once; the kept one when the relay is away, fails or is silent. */
async function freshPage(request: Request): Promise<Response> {
  const asked = fetch(request);
  const lateMs = scope.registration.waiting === null ? PAGE_MS_MAX : OLD_PAGE_MS_MAX;
  const late = new Promise<undefined>((resolve) => setTimeout(() => resolve(undefined), lateMs));
  const fresh = await Promise.race([asked.catch(() => undefined), late]);
  if (fresh !== undefined && fresh.status < 500) {
    return fresh;
  }
  return (await findKept("/")) ?? asked;
}

/** Built files never change under their name. What cannot be kept, because the disk is full, is served all the same. */
async function keptFile(event: FetchEvent): Promise<Response> {
  const { request } = event;
  const kept = await findKept(request);
  if (kept !== undefined) {
    return kept;
  }
  const response = await fetch(request);
  if (response.status === 200) {
    const copy = response.clone();
    const put = caches.open(SHELL).then((cache) => cache.put(request, copy));
    event.waitUntil(put.catch(() => {}));
  }
  return response;
}

/** Undefined where it is not kept, or the browser's storage fails: the relay may answer all the same. */
async function findKept(request: Request | string): Promise<Response | undefined> {
  try {
    return await (await caches.open(SHELL)).match(request, { ignoreSearch: true });
  } catch {
    return undefined;
  }
}

async function removeOldShells(): Promise<void> {
  const names = await caches.keys();
  await Promise.all(
    names
      .filter((name) => (name.startsWith("heddle-shell-") && name !== SHELL) || name === FORMER_CACHE)
      .map((name) => caches.delete(name)),
  );
}
