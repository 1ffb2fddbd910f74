/**
 * ONNX models made here, as the bytes that a runtime loads: one graph of a few nodes with tensors of f32. protobufjs writes
 * them by the part of onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto) that such graphs need.
 */
import protobuf from "protobufjs";

const SCHEMA = `
  syntax = "proto3";
  message ModelProto { int64 ir_version = 1; GraphProto graph = 7; repeated OperatorSetIdProto opset_import = 8; }
  message OperatorSetIdProto { string domain = 1; int64 version = 2; }
  message GraphProto {
    repeated NodeProto node = 1;
    string name = 2;
    repeated TensorProto initializer = 5;
    repeated ValueInfoProto input = 11;
    repeated ValueInfoProto output = 12;
  }
  message NodeProto {
    repeated string input = 1;
    repeated string output = 2;
    string op_type = 4;
    repeated AttributeProto attribute = 5;
    string domain = 7;
  }
  message AttributeProto { string name = 1; int64 i = 3; int32 type = 20; }
  message TensorProto { repeated int64 dims = 1; int32 data_type = 2; string name = 8; bytes raw_data = 9; }
  message ValueInfoProto { string name = 1; TypeProto type = 2; }
  message TypeProto { TensorTypeProto tensor_type = 1; }
  message TensorTypeProto { int32 elem_type = 1; TensorShapeProto shape = 2; }
  message TensorShapeProto { repeated DimensionProto dim = 1; }
  message DimensionProto { int64 dim_value = 1; }`;

/** TensorProto.FLOAT and AttributeProto.INT. */
const [FLOAT, INT] = [1, 2];
/** Opset 17 is of this version. */
const IR_VERSION = 8;
const OPSETS = [
  { domain: "", version: 17 },
  { domain: "com.microsoft", version: 1 },
];

export interface Values {
  readonly dims: readonly number[];
  readonly data: Float32Array<ArrayBuffer>;
}

export interface Node {
  readonly type: string;
  readonly inputs: readonly string[];
  readonly output: string;
  /** That of ONNX itself when it is left out. */
  readonly domain?: string;
  readonly attributes?: Readonly<Record<string, number>>;
}

export interface Graph {
  /** In an order in which they can be computed. */
  readonly nodes: readonly Node[];
  /** Shapes by name. */
  readonly inputs: Readonly<Record<string, readonly number[]>>;
  readonly constants: Readonly<Record<string, Values>>;
  readonly output: { readonly name: string; readonly dims: readonly number[] };
}

const { root } = protobuf.parse(SCHEMA, { keepCase: true });

/** The ModelProto of `graph`. Attributes are whole numbers. */
export function encodeModel({ nodes, inputs, constants, output }: Graph): Uint8Array {
  const graph = {
    name: "graph",
    node: nodes.map(({ type, inputs: input, output: made, domain = "", attributes = {} }) => ({
      input,
      output: [made],
      op_type: type,
      domain,
      attribute: Object.entries(attributes).map(([name, i]) => ({ name, i, type: INT })),
    })),
    initializer: Object.entries(constants).map(([name, { dims, data }]) => ({
      name,
      dims,
      data_type: FLOAT,
      raw_data: new Uint8Array(data.buffer),
    })),
    input: Object.entries(inputs).map(([name, dims]) => valueInfo(name, dims)),
    output: [valueInfo(output.name, output.dims)],
  };
  return root.lookupType("ModelProto").encode({ ir_version: IR_VERSION, opset_import: OPSETS, graph }).finish();
}

function valueInfo(name: string, dims: readonly number[]): object {
  const shape = { dim: dims.map((dim_value) => ({ dim_value })) };
  return { name, type: { tensor_type: { elem_type: FLOAT, shape } } };
}
