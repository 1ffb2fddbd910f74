/** What TypeScript cannot know by itself: shaders imported as text, and a module of a package that ships without types. */
declare module "*.wgsl" {
  const text: string;
  export default text;
}

declare module "comlink/dist/esm/node-adapter.mjs" {
  import type { Endpoint } from "comlink";
  import type { MessagePort, Worker } from "node:worker_threads";
  /** Makes a thread's end of a channel look like the browser's. */
  export default function nodeEndpoint(end: Worker | MessagePort): Endpoint;
}
