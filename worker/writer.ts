/**
 * "Try the model": continues a text with the newest base, on an engine of its own, so that it neither waits for training nor
 * touches its parameters. Engine and parameters are kept for the next text as long as the run's head is the same and nothing
 * has failed.
 */
import { HeddleError, present } from "../src/base/assert.ts";
import { bytesToFloats, type Digest } from "../src/base/bytes.ts";
import { createRng } from "../src/base/rng.ts";
import type { WantedEngine } from "../src/engines/choose.ts";
import type { Tunings } from "../src/engines/tunings.ts";
import { createGenerator, type Generator } from "../src/model/generator.ts";
import { parameterLayout } from "../src/model/layout.ts";
import { logitsProgram } from "../src/model/llama.ts";
import type { FetchBlob } from "../src/net/link.ts";
import type { RunView } from "../src/protocol/run-view.ts";
import type { Engine } from "../src/tensor/engine.ts";
import type { GenerateOptions } from "../src/ui/surface.ts";
import { openEngine } from "./engine.ts";

/** Nats per byte above which a model hardly forms words. */
const YOUNG_LOSS = 2;

/** What becomes of a text while it is written: pieces of it, and the person's word to stop. */
export interface Writing {
  readonly signal: { readonly aborted: boolean };
  readonly onText: (text: string) => void;
}

export interface Writer {
  /** Returns a sentence that says which version wrote, on what. */
  write(options: GenerateOptions, run: RunView, writing: Writing): Promise<string>;
}

/** Without `tunings` the engine's choices are not kept. */
export function createWriter(wanted: WantedEngine, fetchBlob: FetchBlob, tunings: Tunings | undefined): Writer {
  let open: { readonly engine: Engine; readonly generator: Generator; readonly run: Digest } | undefined;
  let loaded: Digest | undefined;

  function putAway(): void {
    open?.generator[Symbol.dispose]();
    open?.engine[Symbol.dispose]();
    open = undefined;
    loaded = undefined;
  }

  async function prepare(run: RunView): Promise<Generator> {
    if (open === undefined || open.run !== run.run) {
      putAway();
      const { model } = run.charter;
      const { engine } = await openEngine(wanted, logitsProgram(model), { output: "logits", tunings });
      try {
        open = { engine, generator: await createGenerator(engine, { model }), run: run.run };
      } catch (error) {
        engine[Symbol.dispose]();
        throw error;
      }
    }
    const head = present(run.versions.at(-1), "a version of the shared base");
    if (loaded !== head.digest) {
      const bytes = await fetchBlob(head.digest, parameterLayout(run.charter.model).size * 4);
      open.generator.load(bytesToFloats(bytes));
      loaded = head.digest;
    }
    return open.generator;
  }

  return {
    write: async ({ prompt, count, temperature }, run, { signal, onText }) => {
      if (run.charter.model.vocabulary > 256) {
        throw new HeddleError("bad-input", "Cannot write: this page has no tokenizer for this run");
      }
      const generator = await prepare(run).catch((error: unknown) => {
        putAway();
        throw error;
      });
      if (signal.aborted) {
        return "Stopped before the first word.";
      }
      const decoder = new TextDecoder();
      const startMs = performance.now();
      let written = 0;
      const writing = generator.generate(new TextEncoder().encode(prompt), {
        count,
        temperature,
        rng: createRng("try", Date.now(), Math.floor(performance.now() * 1_000)),
        signal,
        onByte: (byte) => {
          written += 1;
          onText(decoder.decode(Uint8Array.of(byte), { stream: true }));
        },
      });
      await writing.catch((error: unknown) => {
        if (open?.generator === generator) {
          putAway(); // a device that was lost stays lost: the next text gets another
        }
        throw error;
      });
      const perS = (written * 1_000) / Math.max(1, performance.now() - startMs);
      const device = open?.engine.kind === "webgpu" ? `the GPU (${open.engine.device})` : "the processor";
      const head = run.versions.at(-1);
      const young = (head?.evalLoss ?? 0) > YOUNG_LOSS ? " It is still young, so expect made-up words." : "";
      return `Written by version ${head?.version ?? 0} on ${device}, ${perS.toFixed(0)} bytes per second.${young}`;
    },
  };
}
