/**
 * `fetch` for Node and Deno. Deno passes over `cache: "reload"`: what it says to caches on the way is said in a header here. In a browser
 * that header would have another origin be asked whether it may be sent, which a relay does not allow.
 */
export const reloadingFetch: typeof fetch = (input, init) => {
  if (init?.cache !== "reload") {
    return fetch(input, init);
  }
  const headers = new Headers(init.headers);
  headers.set("cache-control", "no-cache");
  return fetch(input, { ...init, headers });
};
