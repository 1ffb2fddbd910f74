/**
 * The dispatches of Muon: one for the momentum, then three products in each of five turns, all matrices together in each.
 * Where they lie is told by a table, which workgroups search, so that there are five kernels, however many shapes a model
 * has. Matrices whose parameters or Gram matrices one binding cannot span together, or that would take too long together,
 * are taken in groups, a group after the other.
 */
import muonMomentum from "../../shaders/muon-momentum.wgsl" with { type: "text" };
import muonProductNaive from "../../shaders/muon-product-naive.wgsl" with { type: "text" };
import muonProductStaged from "../../shaders/muon-product-staged.wgsl" with { type: "text" };
import muonProduct from "../../shaders/muon-product.wgsl" with { type: "text" };
import muonTile from "../../shaders/muon-tile.wgsl" with { type: "text" };
import sum256 from "../../shaders/sum-256.wgsl" with { type: "text" };
import { gramPlaces, gramSide, MUON_POLYNOMIAL, MUON_TURNS } from "../tensor/program.ts";
import type { MatrixPlace, OpOf, TensorId } from "../tensor/program.ts";
import type { DeviceKind } from "./device.ts";
import { at, read, share, type Binding, type Dispatch } from "./dispatch.ts";
import { bool, f32, inValues, u32, unroll, type Access } from "./shader.ts";

/** Rows and columns of the tile that a workgroup computes. */
const TILE = 32;
/** Words that tell of a matrix; see `tableOf`. */
const WORDS = 6;

/**
 * How the products are computed. naive takes any shape, the others want multiples of 4. blocks: 4 × 4 straight from memory. staged: by
 * way of workgroup memory.
 */
export const MUON_RUNGS = ["naive", "blocks", "staged"] as const;
export type MuonRung = (typeof MUON_RUNGS)[number];

const PRODUCTS: Readonly<Record<MuonRung, { readonly text: string; readonly suffix: string }>> = {
  naive: { text: muonProductNaive, suffix: "-naive" },
  blocks: { text: `${muonTile}\n${muonProduct}`, suffix: "" },
  staged: { text: `${muonTile}\n${muonProductStaged}`, suffix: "-staged" },
};

/** Workgroup memory on a GPU; on a software adapter that is ordinary memory, and barriers are dear. */
export function muonGuess({ software }: Pick<DeviceKind, "software">): MuonRung {
  return software ? "blocks" : "staged";
}

export interface MuonContext {
  readonly bindingBytesMax: number;
  /** The rung that is wanted. */
  readonly rung: MuonRung;
}

interface Window {
  readonly offset: number;
  readonly count: number;
}

/** Matrices that run together, and the windows of P and of [Σ S²] that they lie in. */
interface Company {
  readonly matrices: readonly (MatrixPlace & { readonly gram: number })[];
  readonly params: Window;
  readonly grams: Window;
}

/** 16 dispatches for as many of the op's matrices as fit a binding and a time slice together, and so on. */
export function muonDispatches(op: OpOf<"muon">, { bindingBytesMax, rung }: MuonContext): Dispatch[] {
  return companiesOf(op.matrices, bindingBytesMax).flatMap((company) => dispatchesOf(op, company, rung));
}

function dispatchesOf(op: OpOf<"muon">, company: Company, rung: MuonRung): Dispatch[] {
  const { matrices, params, grams } = company;
  const inFours = matrices.every(({ rows, columns }) => rows % 4 === 0 && columns % 4 === 0);
  const { text, suffix } = PRODUCTS[inFours ? rung : "naive"];
  const { words, squareTiles, tiles } = tableOf(company);
  const part = (id: TensorId, access: Access): Binding => ({ type: "tensor", id, access, window: params });
  const squares = (id: TensorId, access: Access): Binding => ({ type: "tensor", id, access, window: grams });
  const key = matrices.map(({ offset, rows, columns }) => `${rows}x${columns} at ${offset}`).join(", ");
  const places: Binding = { type: "table", key: `muon ${key}`, make: () => new Float32Array(words.buffer) };
  const none: Binding = { type: "none" };
  const counts = { MATRICES: u32(matrices.length), WORDS: u32(WORDS) };
  const polynomial = `vec3<f32>(${MUON_POLYNOMIAL.map(f32).join(", ")})`;
  const product = (kind: "gram" | "mixed" | "apply" | "update", bindings: readonly Binding[]): Dispatch => {
    const [isGram, isMixed, isLast] = [kind === "gram", kind === "mixed", kind === "update"];
    return {
      kernel: `muon-${kind}${suffix}`,
      text: unroll(text, { a: isLast ? 0 : 1, u: isLast ? 1 : 0 }),
      constants: { ...counts, GRAM: bool(isGram), MIXED: bool(isMixed), POLYNOMIAL: polynomial },
      bindings,
      groups: isGram || isMixed ? squareTiles : tiles,
    };
  };
  const width = inFours ? 4 : 1;
  const momentum: Dispatch = {
    kernel: "muon-momentum",
    text: inValues(`${sum256}\n${muonMomentum}`, width),
    constants: { ...counts, WIDTH: u32(width) },
    bindings: [part(op.grads, "write"), part(op.m, "write"), read(op.norm), read(op.hyper), places],
    groups: matrices.length,
  };
  const turns = Array.from({ length: MUON_TURNS }, (_, turn) => {
    const [from, to] = turn % 2 === 0 ? [op.grads, op.other] : [op.other, op.grads];
    const [w, mixed] = [part(from, "read"), squares(op.mixed, "read")];
    return [
      product("gram", [none, w, squares(op.gram, "write"), places]),
      product("mixed", [squares(op.gram, "read"), none, squares(op.mixed, "write"), places]),
      turn < MUON_TURNS - 1
        ? product("apply", [mixed, w, part(to, "write"), places])
        : product("update", [mixed, w, part(op.params, "write"), places, read(op.hyper)]),
    ];
  });
  return [momentum, ...turns.flat()];
}

/**
 * Words of each matrix: the first workgroup of its square products and of its others, its first element in the windows of P
 * and of [Σ S²], rows, columns. And how many workgroups there are of either kind.
 */
function tableOf({ matrices, params, grams }: Company): {
  readonly words: Uint32Array<ArrayBuffer>;
  readonly squareTiles: number;
  readonly tiles: number;
} {
  const words = new Uint32Array(matrices.length * WORDS);
  let [squareTiles, tiles] = [0, 0];
  for (const [i, { offset, gram, rows, columns }] of matrices.entries()) {
    words.set([squareTiles, tiles, offset - params.offset, gram - grams.offset, rows, columns], i * WORDS);
    squareTiles += share(gramSide({ rows, columns }), TILE) ** 2;
    tiles += share(rows, TILE) * share(columns, TILE);
  }
  return { words, squareTiles, tiles };
}

/** Multiply-adds of one dispatch at most, where it has more than one matrix: some hundredths of a second on a slow GPU. */
const MULTIPLY_ADDS_MAX = 5e8;

/** Of the dispatch that applies the polynomial. */
function multiplyAdds(matrices: readonly MatrixPlace[]): number {
  return matrices.reduce((sum, matrix) => sum + gramSide(matrix) * matrix.rows * matrix.columns, 0);
}

/** The matrices in order, as many together as fit a binding and a time slice; one that does not fit is alone, and refused with its size. */
function companiesOf(matrices: readonly MatrixPlace[], bindingBytesMax: number): Company[] {
  const { offsets } = gramPlaces(matrices);
  const companies: Company[] = [];
  for (const [i, matrix] of matrices.entries()) {
    const gram = at(offsets, i);
    const own = {
      matrices: [{ ...matrix, gram }],
      params: { offset: matrix.offset, count: matrix.rows * matrix.columns },
      grams: { offset: gram, count: gramSide(matrix) ** 2 },
    };
    const before = companies.at(-1);
    const together = before === undefined ? own : joined(before, own);
    const fits = 4 * Math.max(together.params.count, together.grams.count) <= bindingBytesMax;
    if (before !== undefined && fits && multiplyAdds(together.matrices) <= MULTIPLY_ADDS_MAX) {
      companies[companies.length - 1] = together;
    } else {
      companies.push(own);
    }
  }
  return companies;
}

function joined(a: Company, b: Company): Company {
  const span = (one: Window, other: Window): Window => {
    const offset = Math.min(one.offset, other.offset);
    return { offset, count: Math.max(one.offset + one.count, other.offset + other.count) - offset };
  };
  return {
    matrices: [...a.matrices, ...b.matrices],
    params: span(a.params, b.params),
    grams: span(a.grams, b.grams),
  };
}
