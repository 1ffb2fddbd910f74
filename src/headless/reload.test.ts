import { execFile } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";

const bin = join(import.meta.dirname, "../../node_modules/.bin");

test.each([
  ["deno", ["eval"]],
  ["node", ["--input-type=module", "--eval"]],
])("reloadingFetch() asks past what keeps answers where it is to, under %s", async (runtime, run) => {
  const asked: (string | undefined)[][] = [];
  await using server = createServer(({ headers }, response) => {
    asked.push([headers.range, headers["cache-control"]]);
    response.end();
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const script = `
    const { reloadingFetch } = await import(${JSON.stringify(join(import.meta.dirname, "reload.ts"))});
    for (const cache of ["default", "reload"]) {
      const headers = { range: "bytes=0-1" };
      const answer = await reloadingFetch("http://127.0.0.1:${(server.address() as AddressInfo).port}/", { headers, cache });
      await answer.text();
    }`;
  await promisify(execFile)(join(bin, runtime), [...run, script]);
  expect(asked).toEqual([
    ["bytes=0-1", undefined],
    ["bytes=0-1", "no-cache"],
  ]);
});
