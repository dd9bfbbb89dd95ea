# SPDX-License-Identifier: MIT
"""ONNX Runtime's MoE operator (com.microsoft) on its CPU provider. It knows one width, so narrower experts are padded."""

import numpy
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from .problem import Skip

NAME = "onnxruntime_moe"
VERSION = f"onnxruntime {onnxruntime.__version__}"


def make(problem, threads):
    """A function from x [T×d] to y [T×d]."""
    problem.needs_top_k()
    if 4 * len(problem.widths) * max(problem.widths) * problem.d_model * 3 > 1.9e9:
        raise Skip("its model would be larger than the 2 GB that a protocol buffer holds")
    experts = problem.padded()
    # The CPU's SwiGLU wants gate and up rows in turn.
    into = numpy.stack([numpy.stack([gate, up], 1).reshape(-1, problem.d_model) for gate, up, _ in experts])
    out = numpy.stack([down for _, _, down in experts])
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["T", problem.d_model])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["T", problem.d_model])
    moe = helper.make_node(
        "MoE", ["x", "logits", "into", "", "out"], ["y"], domain="com.microsoft",
        k=problem.top_k, activation_type="swiglu", swiglu_fusion=1, activation_alpha=1.0, activation_beta=0.0,
        normalize_routing_weights=1,
    )  # fmt: skip
    nodes = [helper.make_node("MatMul", ["x", "router"], ["logits"]), moe]
    tensors = {"router": numpy.ascontiguousarray(problem.router.T), "into": into, "out": out}
    graph = helper.make_graph(
        nodes, "layer", [x], [y], [numpy_helper.from_array(value, name) for name, value in tensors.items()]
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # failures come as exceptions
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no common class
        raise Skip(f"this build of ONNX Runtime refuses the operator: {error}") from error
    return lambda x: session.run(None, {"x": x})[0]
