import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, expect, test } from "vitest";
import { dialOrSayWhy } from "./reach.ts";

let server: Server | undefined;
afterEach(() => server?.close());

/** The origin of a server that answers so. */
async function serving(status: number, headers: Readonly<Record<string, string>> = {}): Promise<string> {
  const made = createServer((_request, response) => response.writeHead(status, headers).end("{}"));
  server = made;
  await new Promise<void>((settle) => {
    made.listen(0, "127.0.0.1", settle);
  });
  return `http://127.0.0.1:${(made.address() as AddressInfo).port}`;
}
const why = (relay: string): Promise<string> =>
  dialOrSayWhy(relay, () => Promise.reject(new Error("The connection was lost"))).then(
    () => "",
    (error: Error) => error.message,
  );

test("dialOrSayWhy() says where a relay sends its visitors, and what else answers there", async () => {
  const moved = await serving(308, { location: "https://relay.example.org/api/run" });
  expect(await why(moved)).toBe(
    `Cannot reach ${moved}: it sends its visitors to https://relay.example.org; name that as --relay`,
  );
  server?.close();
  expect(await why(await serving(404))).toContain("status 404; is it a relay?");
  server?.close();
  expect(await why(await serving(200))).toContain("opens no WebSocket at /link (The connection was lost)");
});

test("dialOrSayWhy() says why nothing answers", async () => {
  const relay = await serving(200);
  expect(await why(relay.replace("http:", "https:"))).toContain("it does not speak TLS");
  server?.close();
  expect(await why(relay)).toContain("nobody listens there");
  expect(await why("http://no-relay.invalid")).toMatch(/its name (is not known here|cannot be looked up now)/);
});
