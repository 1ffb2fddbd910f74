/**
 * From a Program to what a Plan replays: buffers by liveness, bind groups, pipelines, a flat list of dispatches. All that
 * can fail for lack of memory or of a feature fails here, before the first step, with a sentence.
 */
import { assert, HeddleError, present } from "../base/assert.ts";
import type { InTurn } from "../base/turn.ts";
import { flopsOf } from "../tensor/cost.ts";
import { printPlan } from "../tensor/print-plan.ts";
import {
  baseOf,
  elementCount,
  tensorNamed,
  type Op,
  type Program,
  type Tensor,
  type TensorId,
} from "../tensor/program.ts";
import { inMiB, type OpenDevice } from "./device.ts";
import { DISPATCH_FLOPS_MAX, type Binding, type Dispatch } from "./dispatch.ts";
import { fuse, type Group } from "./fuse.ts";
import { dispatchesOf, type KernelChoice, type Tuning } from "./kernels.ts";
import { assignSlots, valueLifetimes, type Lifetime } from "./memory.ts";
import { isSplit } from "./split.ts";
import { specialise, u32, type Rebinding } from "./shader.ts";
import { halfTensors } from "./storage.ts";

/** A device buffer and the window of it that a tensor occupies, in bytes. */
export interface Place {
  readonly buffer: GPUBuffer;
  readonly offset: number;
  readonly size: number;
}

/** One dispatch, ready to be encoded. */
export interface Step {
  readonly kernel: string;
  readonly pipeline: GPUComputePipeline;
  readonly bindGroup: GPUBindGroup;
  readonly x: number;
  readonly y: number;
  /** Floating-point operations. */
  readonly flops: number;
}

/** A run that is cut into submits, from when it was asked for. */
export interface RunUnderWay {
  readonly program: string;
}

/** What all Plans of one engine share. */
export interface Shared {
  readonly open: OpenDevice;
  readonly choice: KernelChoice;
  readonly tuning: Tuning;
  /** The most bytes that states and all Plans may take together; the device itself tells nobody. */
  readonly memoryBytesMax: number;
  /** The buffers of each Plan that is alive, or being compiled. */
  readonly planBuffers: Set<ReadonlySet<GPUBuffer>>;
  /** The buffer of a state tensor, made zero when it is new; it is held until as many calls of `release`. */
  state(tensor: Tensor): GPUBuffer;
  release(state: string): void;
  /** Bytes of the state tensors that exist. */
  stateBytes(): number;
  hasState(name: string): boolean;
  /** Pipelines by their WGSL text. */
  pipeline(text: string, access: readonly string[], kernel: string): Promise<GPUComputePipeline>;
  bindGroupLayout(access: readonly string[]): GPUBindGroupLayout;
  /** Where runs are cut, they and reads go one after the other. */
  readonly inTurn: InTurn;
  readonly underWay: Set<RunUnderWay>;
}

export interface Compiled {
  readonly steps: readonly Step[];
  readonly places: readonly (Place | undefined)[];
  /** A buffer that holds nothing. */
  readonly nothing: GPUBuffer;
  readonly valueBytes: number;
  readonly stateBytes: number;
  /** See `describe` of a Plan. */
  describe(): string;
  /** Buffers that belong to the Plan alone; what is added counts for other Plans' memory. */
  readonly own: Set<GPUBuffer>;
  /** Ends them. */
  free(): void;
}

/** Kinds of binding points by number: "" where the text declares none. */
type Declared = "read-only-storage" | "storage" | "";

/** What a compile has taken from the device. */
interface Held {
  readonly buffers: Set<GPUBuffer>;
  readonly states: string[];
}

/** Leaves nothing on the device when it fails. */
export async function compileProgram(program: Program, shared: Shared): Promise<Compiled> {
  const held: Held = { buffers: new Set(), states: [] };
  const free = (): void => {
    held.buffers.forEach((buffer) => buffer.destroy());
    shared.planBuffers.delete(held.buffers);
  };
  shared.planBuffers.add(held.buffers);
  try {
    return { ...(await compileHolding(held, program, shared)), own: held.buffers, free };
  } catch (error) {
    free();
    for (const name of held.states) {
      shared.release(name);
    }
    throw error;
  }
}

async function compileHolding(held: Held, program: Program, shared: Shared): Promise<Omit<Compiled, "own" | "free">> {
  const { device, limits, watch, software, lanesMin } = shared.open;
  watch.check();
  const shapeOf = (id: number): readonly number[] => present(program.tensors[id], `tensor ${id}`).shape;
  const halves = shared.choice.storage === "f16" ? halfTensors(program) : new Set<TensorId>();
  const elementBytes = (id: TensorId): number => (halves.has(id) ? 2 : 4);
  const context = {
    choice: shared.choice,
    tuning: shared.tuning,
    software,
    lanesMin,
    bindingBytesMax: limits.bindingBytesMax,
    tensorsMax: limits.storageBuffersMax,
    flopsMax: shared.choice.flopsMax ?? DISPATCH_FLOPS_MAX,
    shapeOf,
    countOf: (id: number) => elementCount(shapeOf(id)),
    elementBytes,
  };
  const isAlone = (op: Op): boolean => op.type === "matmul" && isSplit(op, context);
  const groups =
    shared.choice.fusion === "none"
      ? program.ops.map((op) => [[op]])
      : fuse(program, context.tensorsMax, { isAlone, flopsMax: context.flopsMax });
  const work = groups.map((group) => dispatchesOf(group, context));
  const flops = groups.map((group) => group.flat().reduce((sum, op) => sum + flopsOf(op, shapeOf), 0));
  const layout = layOut(program, groups, work, elementBytes);
  checkSizes({ program, work, layout }, shared);

  const allocation = watch.attempt(`reserving memory for "${program.name}"`, () =>
    allocate(held, { program, layout, shared }),
  );
  const { places, scratch, nothing, valueBytes } = allocation.value;
  const tables = new Map<string, Place>();
  await allocation.done;

  const resolve = (binding: Binding, step: number): Place => {
    switch (binding.type) {
      case "tensor": {
        const place = present(places[binding.id], `memory of "${program.tensors[binding.id]?.name}"`);
        const { window } = binding;
        return window === undefined ? place : windowOf(place, window, elementBytes(binding.id));
      }
      case "scratch":
        return present(scratch.get(`${step} ${binding.label}`), `scratch "${binding.label}"`);
      case "table": {
        const known = tables.get(binding.key);
        if (known !== undefined) {
          return known;
        }
        const values = binding.make();
        const buffer = createBuffer(device, binding.key, values.byteLength);
        device.queue.writeBuffer(buffer, 0, values);
        held.buffers.add(buffer);
        const place = { buffer, offset: 0, size: values.byteLength };
        tables.set(binding.key, place);
        return place;
      }
      case "none":
        return { buffer: nothing, offset: 0, size: 16 };
      default:
        return binding satisfies never;
    }
  };
  const binding = watch.attempt(`preparing "${program.name}"`, () =>
    work.flatMap((dispatches, step) =>
      dispatches.map((dispatch) => {
        const resolved = dispatch.bindings.map((wanted) => resolve(wanted, step));
        return prepare({ dispatch, places: resolved, flops: (flops[step] ?? 0) / dispatches.length }, shared);
      }),
    ),
  );
  // Each pipeline that is ready is a sign of life: all of them may take minutes.
  const [steps] = await Promise.all([Promise.all(binding.value.map((step) => watch.settle(step))), binding.done]);
  const stateBytes = program.tensors
    .filter((tensor) => tensor.role === "state" && tensor.view === undefined)
    .reduce((sum, tensor) => sum + elementCount(tensor.shape) * 4, 0);
  // The names alone: the kernels' texts are not kept for it.
  const described = groups.map((group, i) => ({ kernel: kernelsOf(work[i] ?? []), ops: group.flat() }));
  const describe = (): string =>
    printPlan(program, {
      steps: described,
      size: `${steps.length} dispatches`,
      place: (id) => placeName(program, layout, id),
      elementBytes,
      stateBytes,
      valueBytes,
    });
  return { steps, places, nothing, valueBytes, stateBytes, describe };
}

/** "attention-backward-q, attention-backward-kv"; "matmul (3)" for several of a kind in one dispatch. */
function kernelsOf(dispatches: readonly Dispatch[]): string {
  const names = new Map<string, number>();
  for (const name of dispatches.flatMap(({ kernel }) => kernel.split(/ \| | then /))) {
    names.set(name, (names.get(name) ?? 0) + 1);
  }
  return [...names].map(([name, count]) => (count === 1 ? name : `${name} (${count})`)).join(", ");
}

/** Where a tensor lies: "slot 3", "input", the name of a state; a window with its first element, "params+4096". */
function placeName(program: Program, { ids, slots }: Layout, id: number): string {
  const { name, role } = present(program.tensors[baseOf(program, id)], `tensor ${id}`);
  const where =
    role === "value" ? `slot ${slots.of[ids.indexOf(baseOf(program, id))]}` : role === "state" ? name : role;
  const offset = program.tensors[id]?.view?.offset ?? 0;
  return offset === 0 ? where : `${where}+${offset}`;
}

interface Layout {
  readonly ids: readonly number[];
  readonly labels: readonly string[];
  readonly slots: { readonly bytes: readonly number[]; readonly of: readonly number[] };
  readonly scratchBytes: readonly number[];
  readonly elementBytes: (id: TensorId) => number;
}

/** Slots for the values of `program` and for the scratch memory of its steps. */
function layOut(
  program: Program,
  groups: readonly Group[],
  work: readonly (readonly Dispatch[])[],
  elementBytes: (id: TensorId) => number,
): Layout {
  const steps = groups.map((group) => group.flat());
  const lifetimes = valueLifetimes(program, steps, elementBytes);
  const scratch = new Map<string, Lifetime>();
  for (const [step, dispatches] of work.entries()) {
    for (const binding of dispatches.flatMap((dispatch) => dispatch.bindings)) {
      if (binding.type === "scratch") {
        const key = `${step} ${binding.label}`;
        const bytes = Math.max(binding.bytes, scratch.get(key)?.bytes ?? 0);
        scratch.set(key, { bytes, from: step, to: step });
      }
    }
  }
  return {
    ids: [...lifetimes.keys()],
    labels: [...scratch.keys()],
    slots: assignSlots([...lifetimes.values(), ...scratch.values()]),
    scratchBytes: [...scratch.values()].map(({ bytes }) => bytes),
    elementBytes,
  };
}

interface Allocation {
  readonly places: (Place | undefined)[];
  readonly scratch: ReadonlyMap<string, Place>;
  /** Bound where a kernel reads nothing. */
  readonly nothing: GPUBuffer;
  readonly valueBytes: number;
}

function allocate(
  held: Held,
  { program, layout, shared }: { readonly program: Program; readonly layout: Layout; readonly shared: Shared },
): Allocation {
  const { device } = shared.open;
  const create = (label: string, bytes: number): GPUBuffer => {
    const buffer = createBuffer(device, label, bytes);
    held.buffers.add(buffer);
    return buffer;
  };
  const { ids, labels, slots, scratchBytes, elementBytes } = layout;
  const buffers = slots.bytes.map((bytes, slot) => create(`${program.name} slot ${slot}`, bytes));
  let valueBytes = slots.bytes.reduce((sum, bytes) => sum + bytes, 0);
  const slotAt = (index: number): GPUBuffer => present(buffers[slots.of[index] as number], `slot ${index}`);
  const places: (Place | undefined)[] = program.tensors.map((tensor) => {
    const size = elementCount(tensor.shape) * elementBytes(tensor.id);
    if (tensor.view !== undefined) {
      return undefined;
    }
    if (tensor.role === "input") {
      const buffer = create(tensor.name, size);
      valueBytes += size;
      return { buffer, offset: 0, size };
    }
    if (tensor.role === "value") {
      const index = ids.indexOf(tensor.id);
      return index === -1 ? undefined : { buffer: slotAt(index), offset: 0, size };
    }
    const buffer = shared.state(tensor);
    held.states.push(tensor.name);
    return { buffer, offset: 0, size };
  });
  for (const { id, name, shape, view } of program.tensors) {
    const whole = view === undefined ? undefined : places[view.of];
    if (view !== undefined && whole !== undefined) {
      const offset = view.offset * 4;
      assert(
        offset % device.limits.minStorageBufferOffsetAlignment === 0,
        `Cannot bind "${name}": it begins at byte ${offset}, need a multiple of ${device.limits.minStorageBufferOffsetAlignment}`,
      );
      places[id] = { buffer: whole.buffer, offset, size: elementCount(shape) * 4 };
    }
  }
  const scratch = new Map(
    labels.map((label, i) => {
      const place = { buffer: slotAt(ids.length + i), offset: 0, size: scratchBytes[i] as number };
      return [label, place] as const;
    }),
  );
  return { places, scratch, nothing: create("nothing", 256), valueBytes };
}

/** A window of a tensor that lies at `place`; `offset` and `count` are elements. */
function windowOf(place: Place, { offset, count }: { offset: number; count: number }, elementBytes: number): Place {
  return { buffer: place.buffer, offset: place.offset + offset * elementBytes, size: count * elementBytes };
}

function createBuffer(device: GPUDevice, label: string, bytes: number): GPUBuffer {
  const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
  return device.createBuffer({ label, size: Math.ceil(bytes / 16) * 16, usage });
}

/** Throws HeddleError "model-too-big" if a buffer, a binding or the whole is larger than the device allows. */
function checkSizes(
  {
    program,
    work,
    layout,
  }: { readonly program: Program; readonly work: readonly (readonly Dispatch[])[]; readonly layout: Layout },
  { open, memoryBytesMax, planBuffers, stateBytes, hasState }: Shared,
): void {
  const { bufferBytesMax, bindingBytesMax } = open.limits;
  const slotBytes = layout.slots.bytes;
  const refuse = (bytes: number, limit: number, what: string, of: string): void => {
    if (bytes > limit) {
      throw new HeddleError(
        "model-too-big",
        `The model does not fit this device: ${what} needs ${inMiB(bytes)}, ${inMiB(bytes - limit)} more than its limit of ${inMiB(limit)} for ${of}`,
      );
    }
  };
  for (const binding of work.flat().flatMap((dispatch) => dispatch.bindings)) {
    if (binding.type === "tensor") {
      const { name, shape } = present(program.tensors[binding.id], "bound tensor");
      const count = binding.window?.count ?? elementCount(shape);
      refuse(count * layout.elementBytes(binding.id), bindingBytesMax, `"${name}"`, "one binding");
    } else if (binding.type === "scratch") {
      refuse(binding.bytes, bindingBytesMax, `scratch memory of "${program.name}" (${binding.label})`, "one binding");
    }
  }
  refuse(Math.max(0, ...slotBytes), bufferBytesMax, `what "${program.name}" computes`, "one buffer");
  const outputs = program.outputs.map((name) => 4 * elementCount(tensorNamed(program, name).shape));
  const read = outputs.reduce((sum, size) => sum + size, 0);
  refuse(read, bufferBytesMax, `what is read of "${program.name}"`, "one buffer");
  let bytes = slotBytes.reduce((sum, size) => sum + size, 0) + stateBytes();
  for (const tensor of program.tensors) {
    if (tensor.view === undefined && tensor.role !== "value") {
      const size = elementCount(tensor.shape) * 4;
      refuse(size, bufferBytesMax, `"${tensor.name}"`, "one buffer");
      bytes += tensor.role === "state" && hasState(tensor.name) ? 0 : size;
    }
  }
  const otherBytes = [...planBuffers].flatMap((own) => [...own]).reduce((sum, { size }) => sum + size, 0);
  const beside = otherBytes === 0 ? "" : " beside the Plans that are there";
  refuse(bytes + otherBytes, memoryBytesMax, `"${program.name}"${beside}`, "all buffers together");
}

interface Bound {
  readonly dispatch: Dispatch;
  readonly places: readonly Place[];
  readonly flops: number;
}

async function prepare({ dispatch, places, flops }: Bound, shared: Shared): Promise<Step> {
  const { device, limits } = shared.open;
  const y = Math.ceil(dispatch.groups / limits.groupsPerDimensionMax);
  const x = Math.ceil(dispatch.groups / y);
  assert(y <= limits.groupsPerDimensionMax, `Cannot dispatch ${dispatch.kernel}: ${dispatch.groups} workgroups`);
  const { rebindings, declared } = rebind(dispatch, places);
  const constants = { GRID_X: u32(x), ...dispatch.constants };
  const text = specialise(dispatch.text, constants, { rebindings, bindingBytes: places.map(({ size }) => size) });
  const entries = places
    .map((resource, binding) => ({ binding, resource }))
    .filter(({ binding }) => declared[binding] !== "");
  const bindGroup = device.createBindGroup({
    label: dispatch.kernel,
    layout: shared.bindGroupLayout(declared),
    entries,
  });
  const pipeline = await shared.pipeline(text, declared, dispatch.kernel);
  return { kernel: dispatch.kernel, pipeline, bindGroup, x, y, flops };
}

/** What to change in a shader because two of its bindings lie in one buffer, and what its binding points then are. */
function rebind(
  { kernel, bindings }: Dispatch,
  places: readonly Place[],
): { rebindings: Rebinding[]; declared: Declared[] } {
  const isWritten = (binding: Binding | undefined): boolean =>
    (binding?.type === "tensor" || binding?.type === "scratch") && binding.access === "write";
  const declared: Declared[] = bindings.map((binding) => (isWritten(binding) ? "storage" : "read-only-storage"));
  const rebindings: Rebinding[] = [];
  for (const [index, place] of places.entries()) {
    for (const [target, other] of places.entries()) {
      if (isWritten(bindings[index]) || !isWritten(bindings[target]) || place.buffer !== other.buffer) {
        continue;
      }
      const binding = bindings[index];
      if (place.offset === other.offset && place.size === other.size) {
        const may = (binding?.type === "tensor" || binding?.type === "scratch") && binding.inPlace === true;
        assert(may, `Cannot run ${kernel} in place`);
        rebindings.push({ type: "same-as", index, target });
        declared[index] = "";
        break;
      }
      const apart = place.offset + place.size <= other.offset || other.offset + other.size <= place.offset;
      assert(apart, `Cannot run ${kernel}: bindings ${index} and ${target} overlap`);
      if (declared[index] !== "storage") {
        rebindings.push({ type: "writable", index });
        declared[index] = "storage";
      }
    }
  }
  return { rebindings, declared };
}
