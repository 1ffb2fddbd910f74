/** How the commands beside the relay run, `npm run data` and `npm run admin`: usage, sentences and exit codes. */
import process from "node:process";
import { HeddleError, messageIn } from "../base/assert.ts";

export interface Terminal {
  readonly print: (line: string) => void;
  readonly printError: (line: string) => void;
}

/** That of this process. */
export const TERMINAL: Terminal = {
  print: (line) => process.stdout.write(`${line}\n`),
  printError: (line) => process.stderr.write(`${line}\n`),
};

export interface CommandLine<Command> {
  readonly usage: string;
  /** Throws with a sentence for what cannot be asked for. */
  readonly parse: () => Command | "help";
  readonly carryOut: (command: Command) => Promise<void>;
}

/** Runs the command; resolves to the exit code: 0, 1 for what went wrong while working, 2 for what cannot be asked for. */
export async function runCommand<Command>(
  { print, printError }: Terminal,
  { usage, parse, carryOut }: CommandLine<Command>,
): Promise<number> {
  let command: Command | "help";
  try {
    command = parse();
  } catch (error) {
    printError(`${messageIn(error)}\n\n${usage}`);
    return 2;
  }
  if (command === "help") {
    print(usage);
    return 0;
  }
  try {
    await carryOut(command);
    return 0;
  } catch (error) {
    if (!(error instanceof HeddleError)) {
      throw error;
    }
    printError(error.message);
    return 1;
  }
}
