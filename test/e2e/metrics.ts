/** Reads the metrics of a relay that runs, over its operator's socket. */
import { get } from "node:http";
import { join } from "node:path";
import { text } from "node:stream/consumers";

/** The value of a series, by name and, where there is one, the label that matters; 0 where there is none. */
export type MetricsRead = (name: string, label?: string) => number;

/** The metrics, as they are now, of the relay whose folder is `dir`. */
export async function readMetrics(dir: string): Promise<MetricsRead> {
  const lines = await new Promise<string[]>((settle, reject) => {
    get({ socketPath: join(dir, "operator.sock"), path: "/metrics", agent: false }, (response) => {
      text(response).then((body) => settle(body.split("\n")), reject);
    }).once("error", reject);
  });
  return (name, label) => {
    const series = label === undefined ? name : `${name}{${label}}`;
    return Number(lines.find((line) => line.startsWith(`${series} `))?.slice(series.length + 1) ?? 0);
  };
}
