"""The same graph with matrix products in int8: a second, smaller file of the result."""

import tempfile
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quant_utils, quantize_dynamic

from include.trainer.export import graph_files

PRODUCTS = ("MatMul", "Gemm")


def quantize(graph: Path, out: Path) -> bool:
    """Write the graph with weights in int8 a column and activations by their range in each call.

    Returns False, and writes nothing, for a graph without a product to gain by. Embeddings, scaling and trees stay as they
    are, and so do products of a concatenation: embeddings and scaled numbers differ by orders of magnitude, and one range
    for both leaves embeddings two or three levels (measured on flights: AUC -.003, and -.00007 without them). Weights take
    7 bits, since processors without VNNI overflow on 8 (scores .2 apart, measured).
    """
    model, tables = graph_files.read(graph)
    concatenated = {node.output[0] for node in model.graph.node if node.op_type == "Concat"}
    products = [node for node in model.graph.node if node.op_type in PRODUCTS]
    excluded = [node.name for node in products if node.input[0] in concatenated]
    if len(excluded) == len(products):
        return False
    quant_utils.add_pre_process_metadata(model)  # there is nothing to fold, and without it a warning is printed
    with tempfile.TemporaryDirectory() as folder:
        quantized = Path(folder) / "int8.onnx"
        quantize_dynamic(
            model,
            quantized,
            op_types_to_quantize=list(PRODUCTS),
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
            nodes_to_exclude=[*excluded, *(f"{name}_MatMul" for name in excluded)],
        )
        graph_files.write(out, onnx.load(quantized), tables)
    return True
