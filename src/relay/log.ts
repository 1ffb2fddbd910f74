/**
 * Everything that the relay says goes through here: JSON lines for programs (pino; level, time, the event's name, its fields
 * and a sentence), or sentences and a table of versions for the person at a terminal, who gets failures on standard error.
 */
import { pino, stdTimeFunctions } from "pino";
import type { VersionView } from "../protocol/run-view.ts";

export type LogFormat = "json" | "text";

type Fields = Readonly<Record<string, unknown>>;

export interface Log {
  /** A sentence for people, none when it is empty; in JSON the `event` with its fields and the sentence's first line. */
  say(event: string, fields: Fields, sentence: string): void;
  /** The same for what an operator should look at. */
  warn(event: string, fields: Fields, sentence: string): void;
  /** The same for why the relay ends. */
  fail(event: string, fields: Fields, sentence: string): void;
  /** What only somebody who looks for a fault wants to know. */
  debug(sentence: string): void;
  version(view: VersionView): void;
}

export interface LogOptions {
  readonly format: LogFormat;
  /** Whether `debug` says anything. */
  readonly debug: boolean;
  readonly write: (text: string) => void;
  readonly writeError: (text: string) => void;
}

export function createLog(options: LogOptions): Log {
  return options.format === "json" ? createJsonLog(options) : createTextLog(options);
}

function createJsonLog({ debug, write }: LogOptions): Log {
  const logger = pino(
    {
      level: debug ? "debug" : "info",
      base: null, // one process a file or journal: whoever collects them adds host and unit
      timestamp: stdTimeFunctions.isoTime,
      formatters: { level: (level) => ({ level }) },
    },
    { write },
  );
  const firstLine = (sentence: string): string | undefined => sentence.trim().split("\n", 1)[0] || undefined;
  return {
    say: (event, fields, sentence) => logger.info({ event, ...fields }, firstLine(sentence)),
    warn: (event, fields, sentence) => logger.warn({ event, ...fields }, firstLine(sentence)),
    fail: (event, fields, sentence) => logger.error({ event, ...fields }, firstLine(sentence)),
    debug: (sentence) => logger.debug({ event: "debug" }, sentence),
    version: (view) => logger.info({ event: "version", ...view }),
  };
}

const HEADING = "\nversion  eval loss  contributors  accepted  refused        up      down  tokens/s\n";
const HEADING_ROWS = 20;

function createTextLog({ debug, write, writeError }: LogOptions): Log {
  let rows = 0;
  const say = (_event: string, _fields: Fields, sentence: string): void => {
    if (sentence !== "") {
      write(`${sentence}\n`);
    }
  };
  return {
    say,
    warn: say,
    fail: (_event, _fields, sentence) => writeError(`${sentence}\n`),
    debug: (sentence) => {
      if (debug) {
        writeError(`${sentence}\n`);
      }
    },
    version: (view) => {
      if (rows % HEADING_ROWS === 0) {
        write(HEADING);
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
