/** What the relay prints: one line a version for people, or one JSON object a line for programs. */
import type { VersionView } from "../protocol/run-view.ts";

export interface Printer {
  /** A sentence for people; in JSON mode an object tagged by `event`. */
  say(event: string, fields: Readonly<Record<string, unknown>>, sentence: string): void;
  version(view: VersionView): void;
}

export function createPrinter(json: boolean, write: (text: string) => void): Printer {
  const line = (event: string, fields: Readonly<Record<string, unknown>>): void =>
    write(`${JSON.stringify({ event, ...fields })}\n`);
  let rows = 0;
  return {
    say: (event, fields, sentence) => {
      if (json) {
        line(event, fields);
      } else if (sentence !== "") {
        write(`${sentence}\n`);
      }
    },
    version: (view) => {
      if (json) {
        line("version", { ...view });
        return;
      }
      if (rows % 20 === 0) {
        write("\nversion  eval loss  contributors  accepted  refused        up      down  tokens/s\n");
      }
      rows += 1;
      const cells = [
        String(view.version).padStart(7),
        view.evalLoss.toFixed(4).padStart(11),
        String(view.contributors).padStart(14),
        String(view.accepted).padStart(10),
        String(view.refused).padStart(9),
        bytes(view.bytesUp).padStart(10),
        bytes(view.bytesDown).padStart(10),
        Math.round(view.tokensPerS).toLocaleString("en").padStart(10),
      ];
      write(`${cells.join("")}\n`);
    },
  };
}

/** 1,234,567 → "1.23 MB". */
export function bytes(count: number): string {
  if (count < 1_000) {
    return `${count} B`;
  }
  return count < 1_000_000 ? `${(count / 1_000).toFixed(1)} kB` : `${(count / 1_000_000).toFixed(2)} MB`;
}
