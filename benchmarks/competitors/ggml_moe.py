# SPDX-License-Identifier: MIT
"""ggml, the engine under llama.cpp: a graph of three products by expert ids, as its model code builds for SwiGLU experts.

Weights lie in the buffer that repacks them where ggml has a packed form, as llama.cpp loads them. It knows one width.
HMOE_PACKAGE names the folder with its libraries.
"""

import ctypes
import os
from ctypes import POINTER, c_bool, c_char_p, c_int, c_int64, c_size_t, c_void_p
from pathlib import Path

import numpy

from peers.problem import Refused

TYPES = {"f32": ("f32", 4.0), "bf16": ("bf16", 2.0), "q8": ("q8_0", 34 / 32), "q4": ("q4_0", 18 / 32),
         "mxfp4": ("mxfp4", 17 / 32)}  # fmt: skip


class InitParams(ctypes.Structure):
    _fields_ = (("mem_size", c_size_t), ("mem_buffer", c_void_p), ("no_alloc", c_bool))


# What is called of it: result, arguments. Pointers to its structures are opaque.
FUNCTIONS = {
    "ggml_init": (c_void_p, InitParams), "ggml_free": (None, c_void_p), "ggml_version": (c_char_p,),
    "ggml_type_name": (c_char_p, c_int), "ggml_nbytes": (c_size_t, c_void_p),
    "ggml_quantize_chunk": (c_size_t, c_int, c_void_p, c_void_p, c_int64, c_int64, c_int64, c_void_p),
    "ggml_new_tensor_2d": (c_void_p, c_void_p, c_int, c_int64, c_int64),
    "ggml_new_tensor_3d": (c_void_p, c_void_p, c_int, c_int64, c_int64, c_int64),
    "ggml_set_input": (None, c_void_p), "ggml_set_output": (None, c_void_p),
    "ggml_reshape_3d": (c_void_p, c_void_p, c_void_p, c_int64, c_int64, c_int64),
    "ggml_view_2d": (c_void_p, c_void_p, c_void_p, c_int64, c_int64, c_size_t, c_size_t),
    "ggml_mul_mat_id": (c_void_p, c_void_p, c_void_p, c_void_p, c_void_p),
    "ggml_swiglu_split": (c_void_p, c_void_p, c_void_p, c_void_p),
    "ggml_mul": (c_void_p, c_void_p, c_void_p, c_void_p), "ggml_add": (c_void_p, c_void_p, c_void_p, c_void_p),
    "ggml_new_graph": (c_void_p, c_void_p), "ggml_build_forward_expand": (None, c_void_p, c_void_p),
    "ggml_backend_cpu_init": (c_void_p,), "ggml_backend_cpu_set_n_threads": (None, c_void_p, c_int),
    "ggml_backend_cpu_buffer_type": (c_void_p,), "ggml_backend_get_device": (c_void_p, c_void_p),
    "ggml_backend_dev_backend_reg": (c_void_p, c_void_p), "ggml_backend_dev_supports_op": (c_bool, c_void_p, c_void_p),
    "ggml_backend_reg_get_proc_address": (c_void_p, c_void_p, c_char_p),
    "ggml_backend_buft_name": (c_char_p, c_void_p), "ggml_backend_buffer_free": (None, c_void_p),
    "ggml_backend_alloc_ctx_tensors_from_buft": (c_void_p, c_void_p, c_void_p),
    "ggml_backend_tensor_set": (None, c_void_p, c_void_p, c_size_t, c_size_t),
    "ggml_backend_tensor_get": (None, c_void_p, c_void_p, c_size_t, c_size_t),
    "ggml_gallocr_new": (c_void_p, c_void_p), "ggml_gallocr_alloc_graph": (c_bool, c_void_p, c_void_p),
    "ggml_backend_graph_compute": (c_int, c_void_p, c_void_p),
}  # fmt: skip


def library():
    folder = Path(os.environ["HMOE_PACKAGE"], "lib")
    parts = [ctypes.CDLL(str(folder / f"lib{name}.so"), ctypes.RTLD_GLOBAL) for name in ("ggml-base", "ggml-cpu", "ggml")]

    class Functions:
        pass

    for name, (result, *arguments) in FUNCTIONS.items():
        function = next((getattr(part, name) for part in parts if hasattr(part, name)), None)
        if function is None:
            raise Refused(f"this ggml has no {name}")
        function.restype, function.argtypes = result, arguments
        setattr(Functions, name.removeprefix("ggml_"), staticmethod(function))
    return Functions


def address(array):
    return array.ctypes.data_as(c_void_p)


class Layer:
    def __init__(self, problem, form, threads):
        self.g, self.problem = library(), problem
        name, self.bytes_per_weight = TYPES[form]
        self.type = next((t for t in range(64) if self.g.type_name(t) == name.encode()), None)
        if self.type is None:
            raise Refused(f"this ggml has no type {name}")
        if problem.d_model % 32:
            raise Refused("its blocks have 32 weights, which the layer's inputs are no multiple of")
        problem.round_up(32)
        self.backend = self.g.backend_cpu_init()
        self.g.backend_cpu_set_n_threads(self.backend, threads)
        self.plain = self.g.backend_cpu_buffer_type()
        self.copies = problem.copies(problem.weights * self.bytes_per_weight)
        self.buffer_type, data = None, self.quantised()
        self.weights = [self.placed(data) for _ in range(self.copies)]
        self.version = f"ggml {self.g.version().decode()}, weights in {self.g.backend_buft_name(self.buffer_type).decode()}"
        self.memory, self.graphs, self.tokens = self.g.gallocr_new(self.plain), {}, 0

    def context(self, size):
        return self.g.init(InitParams(size, None, True))

    def quantised(self):
        """(gate, up, down), each for all experts as bytes."""
        p, made = self.problem, ([], [], [])
        for number in range(p.experts):
            for matrix, kept in zip(p.padded(number), made):
                rows, columns = matrix.shape
                source = numpy.ascontiguousarray(matrix)
                target = numpy.empty(round(matrix.size * self.bytes_per_weight), numpy.uint8)
                if self.g.quantize_chunk(self.type, address(source), address(target), 0, rows, columns, None) != target.size:
                    raise Refused("its blocks have another size than expected")
                kept.append(target)
        return tuple(numpy.concatenate(kept) for kept in made)

    def extra_buffer_types(self):
        device = self.g.backend_get_device(self.backend)
        found = self.g.backend_reg_get_proc_address(
            self.g.backend_dev_backend_reg(device), b"ggml_backend_dev_get_extra_bufts"
        )
        if not found:
            return device, []
        kinds, listed = ctypes.CFUNCTYPE(POINTER(c_void_p), c_void_p)(found)(device), []
        while kinds and kinds[len(listed)]:
            listed.append(kinds[len(listed)])
        return device, listed

    def tensors(self, context):
        p = self.problem
        sizes = ((p.d_model, p.width), (p.d_model, p.width), (p.width, p.d_model))
        return [self.g.new_tensor_3d(context, self.type, *size, p.experts) for size in sizes]

    def suits(self, device, kind):
        """Whether that kind of buffer can hold the weights, tried on one graph."""
        context = self.context(1 << 20)
        weights = self.tensors(context)
        buffer = self.g.backend_alloc_ctx_tensors_from_buft(context, kind)
        good = bool(buffer)
        if good:
            x = self.g.new_tensor_3d(context, 0, self.problem.d_model, 1, 1)
            ids = self.g.new_tensor_2d(context, 26, self.problem.top_k, 1)
            good = self.g.backend_dev_supports_op(device, self.g.mul_mat_id(context, weights[0], x, ids))
            self.g.backend_buffer_free(buffer)
        self.g.free(context)
        return good

    def placed(self, data):
        """A copy of the weights in the buffer that suits them."""
        if self.buffer_type is None:
            device, extra = self.extra_buffer_types()
            self.buffer_type = next((kind for kind in extra if self.suits(device, kind)), self.plain)
        context = self.context(1 << 20)
        tensors = self.tensors(context)
        if not self.g.backend_alloc_ctx_tensors_from_buft(context, self.buffer_type):
            raise Refused("ggml has no memory for the weights")
        for to, values in zip(tensors, data):
            self.g.backend_tensor_set(to, address(values), 0, values.nbytes)
        return tensors

    def load(self, entry):
        return {"x": numpy.ascontiguousarray(entry.x), "ids": numpy.ascontiguousarray(entry.ids),
                "weights": numpy.ascontiguousarray(entry.weights), "tokens": len(entry.x)}  # fmt: skip

    def graph(self, copy, tokens):
        """(graph, x, ids, weights, y) for a copy of the weights."""
        if tokens != self.tokens:
            for context, *_ in self.graphs.values():
                self.g.free(context)
            self.graphs, self.tokens = {}, tokens
        if copy not in self.graphs:
            self.graphs[copy] = self.built(copy, tokens)
        return self.graphs[copy][1:]

    def built(self, copy, tokens):
        g, p = self.g, self.problem
        d, k, context = p.d_model, p.top_k, self.context(4 << 20)
        x, ids = g.new_tensor_2d(context, 0, d, tokens), g.new_tensor_2d(context, 26, k, tokens)
        weights = g.new_tensor_3d(context, 0, 1, k, tokens)
        for entry in (x, ids, weights):
            g.set_input(entry)
        gate, up, down = self.weights[copy]
        rows = g.reshape_3d(context, x, d, 1, tokens)
        hidden = g.swiglu_split(context, g.mul_mat_id(context, gate, rows, ids), g.mul_mat_id(context, up, rows, ids))
        outputs = g.mul(context, g.mul_mat_id(context, down, hidden, ids), weights)
        row = 4 * d
        y = None
        for place in range(k):
            part = g.view_2d(context, outputs, d, tokens, k * row, place * row)
            y = part if y is None else g.add(context, y, part)
        g.set_output(y)
        graph = g.new_graph(context)
        g.build_forward_expand(graph, y)
        if not g.gallocr_alloc_graph(self.memory, graph):
            raise Refused("ggml has no memory for its graph")
        return context, graph, x, ids, weights, y

    def feed(self, copy, loaded):
        _, x, ids, weights, _ = self.graph(copy, loaded["tokens"])
        for to, name in ((x, "x"), (ids, "ids"), (weights, "weights")):
            self.g.backend_tensor_set(to, address(loaded[name]), 0, loaded[name].nbytes)

    def run(self, copy, loaded):
        graph, *_ = self.graph(copy, loaded["tokens"])
        if self.g.backend_graph_compute(self.backend, graph) != 0:
            raise Refused("ggml could not compute its graph")
        self.last = copy

    def result(self, loaded):
        y = numpy.empty((loaded["tokens"], self.problem.d_model), numpy.float32)
        self.g.backend_tensor_get(self.graph(self.last, loaded["tokens"])[-1], address(y), 0, y.nbytes)
        return y


def make(subject, problem, form, threads):
    return Layer(problem, form, threads)
