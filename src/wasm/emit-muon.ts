/** The instructions of Muon: elements by those of `assembly/muon.ts`, products by the ordinary ones, one matrix after the other. */
import { gramPlaces, gramSide, MUON_POLYNOMIAL, MUON_TURNS, muonStretch } from "../tensor/program.ts";
import type { MatrixPlace, OpOf, TensorId } from "../tensor/program.ts";
import * as code from "./assembly/opcodes.ts";
import { emitNormOf, emitProduct, type Operand } from "./emit-linear.ts";
import type { Place } from "./layout.ts";
import { floatBits, type Pen } from "./pen.ts";

export function emitMuon(pen: Pen, op: OpOf<"muon">): void {
  const { offsets } = gramPlaces(op.matrices);
  for (const [i, matrix] of op.matrices.entries()) {
    emitMuonOf(pen, op, { ...matrix, gramOffset: offsets[i] ?? 0 });
  }
}

/** The instructions of one matrix: X goes from grads to other and back, turn by turn. */
function emitMuonOf(
  pen: Pen,
  op: OpOf<"muon">,
  { offset, rows, columns, gramOffset }: MatrixPlace & { readonly gramOffset: number },
): void {
  const at = (id: TensorId, elements: number): Place => after(pen.place(id), 4 * elements);
  const [count, side] = [rows * columns, gramSide({ rows, columns })];
  const [gram, mixed] = [at(op.gram, gramOffset), at(op.mixed, gramOffset)];
  const [params, hyper] = [at(op.params, offset), pen.place(op.hyper)];
  const tiles = Math.ceil(count / code.BLOCK);
  let [x, next] = [at(op.grads, offset), at(op.other, offset)];
  pen.emit(code.MUON_MOMENTUM, tiles, [x, at(op.m, offset), pen.place(op.norm), hyper, count]);
  emitNormOf(pen, x, count, mixed);
  pen.emit(code.MUON_SCALE, tiles, [x, mixed, count]);
  const square = (place: Place): Operand => ({ place, columns: side, transposed: false });
  const coefficients = MUON_POLYNOMIAL.map(floatBits);
  const wide = rows <= columns;
  for (let turn = 0; turn < MUON_TURNS; turn += 1) {
    const straight = { place: x, columns, transposed: false };
    const turned = { place: x, columns, transposed: true };
    const [a, b] = wide ? [straight, turned] : [turned, straight];
    emitProduct(pen, { a, b, out: gram, sizes: [side, side, Math.max(rows, columns)] });
    emitProduct(pen, { a: square(gram), b: square(gram), out: mixed, sizes: [side, side, side] });
    pen.emit(code.MUON_MIX, Math.ceil(side ** 2 / code.BLOCK), [gram, mixed, side, ...coefficients]);
    const operands = wide ? { a: square(mixed), b: straight } : { a: straight, b: square(mixed) };
    emitProduct(pen, { ...operands, out: next, sizes: [rows, columns, side] });
    [x, next] = [next, x];
  }
  pen.emit(code.MUON_STEP, tiles, [params, x, hyper, count, floatBits(muonStretch({ rows, columns }))]);
}

/** The place so many bytes further on. */
function after(place: Place, bytes: number): Place {
  return { ...place, offset: place.offset + bytes };
}
