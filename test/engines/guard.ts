/**
 * Catches kernels that reach beyond their tensors. WGSL hides that: an access beyond a binding goes to its last element or
 * nowhere. So every buffer of a guarded device is longer than was asked for, bindings reach to its end, whatever length the
 * shader declares, and the rest holds a pattern that must still be there when the buffer is destroyed. Read as a float it is
 * 1e30, so that a result which depends on it is far off. Follows ggml's test-backend-ops, whose tensors lie between
 * sentinels.
 */
import { assert } from "../../src/base/assert.ts";

const GUARD_BYTES = 256;
/** Engines round buffers up to so many bytes; the rounding is guarded too. */
const ROUNDING_BYTES = 16;
const REGION_BYTES = GUARD_BYTES + ROUNDING_BYTES;
const LEDGER_BYTES = 2 ** 23;
const PATTERN = 0x7149f2ca;

export interface Guard {
  /** Opens guarded devices. */
  readonly adapter: GPUAdapter;
  /** What buffers that are made from now on are reported under. */
  watch(label: string): void;
  /** A sentence for each label with a buffer whose end was overwritten. To be called before the device is destroyed. */
  finish(): Promise<ReadonlyMap<string, string>>;
}

interface Guarded {
  readonly buffer: GPUBuffer;
  readonly label: string;
  /** Bytes that were asked for. */
  readonly size: number;
  /** Where the last use ends; what follows holds the pattern. */
  usedEnd: number;
  filled: boolean;
}

interface Region {
  readonly of: Guarded;
  /** Bytes in the ledger. */
  readonly at: number;
  readonly count: number;
}

/** Makes `adapter` open guarded devices; one device is watched, the last that was opened. */
export function guardAdapter(adapter: GPUAdapter): Guard {
  let label = "";
  let finish: (() => Promise<ReadonlyMap<string, string>>) | undefined;
  const request = adapter.requestDevice.bind(adapter);
  replace(adapter, "requestDevice", async (descriptor?: GPUDeviceDescriptor) => {
    const device = await request(descriptor);
    finish = guardDevice(device, () => label);
    return device;
  });
  return {
    adapter,
    watch: (next) => {
      label = next;
    },
    finish: () => {
      assert(finish !== undefined, "Cannot finish: no device was opened");
      return finish();
    },
  };
}

/** Returns what ends the watch over `device`. */
function guardDevice(device: GPUDevice, label: () => string): () => Promise<ReadonlyMap<string, string>> {
  const guarded = new Map<GPUBuffer, Guarded>();
  const regions: Region[] = [];
  const create = device.createBuffer.bind(device);
  const ledger = create({ size: LEDGER_BYTES, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
  const pattern = new Uint32Array(REGION_BYTES / 4).fill(PATTERN);
  const submit = device.queue.submit.bind(device.queue);
  const write = device.queue.writeBuffer.bind(device.queue);
  const use = (buffer: GPUBuffer, end: number): void => {
    const one = guarded.get(buffer);
    if (one !== undefined) {
      one.usedEnd = Math.max(one.usedEnd, end);
    }
  };
  /** Copies the end of a buffer to the ledger, before it is gone. */
  const settle = (one: Guarded): void => {
    guarded.delete(one.buffer);
    if (!one.filled) {
      return;
    }
    const count = one.size + GUARD_BYTES - one.usedEnd;
    const at = regions.length * REGION_BYTES;
    assert(at + REGION_BYTES <= LEDGER_BYTES, "Cannot guard so many buffers");
    const encoder = device.createCommandEncoder();
    encoder.copyBufferToBuffer(one.buffer, one.usedEnd, ledger, at, count);
    submit([encoder.finish()]);
    regions.push({ of: one, at, count });
  };
  replace(device, "createBuffer", (descriptor: GPUBufferDescriptor) => {
    if ((descriptor.usage & GPUBufferUsage.STORAGE) === 0) {
      return create(descriptor);
    }
    const { size } = descriptor;
    const usage = descriptor.usage | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
    const buffer = create({ ...descriptor, usage, size: size + GUARD_BYTES });
    const usedEnd = Math.max(4, size - ROUNDING_BYTES + 4);
    const one = { buffer, label: label(), size, usedEnd, filled: false };
    guarded.set(buffer, one);
    const destroy = buffer.destroy.bind(buffer);
    replace(buffer, "destroy", () => {
      if (guarded.has(buffer)) {
        settle(one);
      }
      destroy();
    });
    return buffer;
  });
  const bind = device.createBindGroup.bind(device);
  replace(device, "createBindGroup", (descriptor: GPUBindGroupDescriptor) => {
    const bound = [...descriptor.entries].map((entry) => ({ ...entry, resource: entry.resource as GPUBufferBinding }));
    const entries = bound.map(({ binding, resource }) => {
      const { buffer, offset = 0, size = 0 } = resource;
      use(buffer, offset + size);
      // Two windows of one buffer must not overlap.
      const alone = bound.filter((other) => other.resource.buffer === buffer).length === 1;
      return { binding, resource: alone ? { buffer, offset } : { buffer, offset, size } };
    });
    return bind({ ...descriptor, entries });
  });
  const compile = device.createShaderModule.bind(device);
  replace(device, "createShaderModule", (descriptor: GPUShaderModuleDescriptor) =>
    compile({ ...descriptor, code: descriptor.code.replaceAll(/^(@group.*: array<.*), \d+>;$/gm, "$1>;") }),
  );
  const encode = device.createCommandEncoder.bind(device);
  replace(device, "createCommandEncoder", (descriptor?: GPUCommandEncoderDescriptor) => {
    const encoder = encode(descriptor);
    const copy = encoder.copyBufferToBuffer.bind(encoder) as (...words: unknown[]) => void;
    replace(
      encoder,
      "copyBufferToBuffer",
      (from: GPUBuffer, start: number, to: GPUBuffer, at: number, size: number) => {
        use(from, start + size);
        use(to, at + size);
        copy(from, start, to, at, size);
      },
    );
    return encoder;
  });
  replace(device.queue, "writeBuffer", (buffer: GPUBuffer, offset: number, values: ArrayBufferView<ArrayBuffer>) => {
    use(buffer, offset + values.byteLength);
    write(buffer, offset, values);
  });
  replace(device.queue, "submit", (commands: GPUCommandBuffer[]) => {
    // Submits of nothing (`gpu/nudge.ts`) come before it is known how much of a buffer is used.
    for (const one of commands.length === 0 ? [] : guarded.values()) {
      if (!one.filled) {
        one.filled = true;
        write(one.buffer, one.usedEnd, pattern, 0, (one.size + GUARD_BYTES - one.usedEnd) / 4);
      }
    }
    submit(commands);
  });
  return async () => {
    [...guarded.values()].forEach(settle);
    await ledger.mapAsync(GPUMapMode.READ);
    const words = new Uint32Array(ledger.getMappedRange().slice(0));
    const faults = new Map<string, string>();
    for (const { of, at, count } of regions) {
      const wrong = words.subarray(at / 4, (at + count) / 4).findIndex((word) => word !== PATTERN);
      if (wrong !== -1) {
        const where = `${of.buffer.label} of ${of.size} bytes was written at byte ${of.usedEnd + wrong * 4}`;
        faults.set(of.label, `${where}, and is used up to byte ${of.usedEnd}`);
      }
    }
    ledger.destroy();
    return faults;
  };
}

function replace(object: object, name: string, value: unknown): void {
  Object.defineProperty(object, name, { value, configurable: true });
}
