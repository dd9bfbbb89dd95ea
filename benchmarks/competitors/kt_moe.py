# SPDX-License-Identifier: MIT
"""kt-kernel, the experts of KTransformers on CPUs: its extension module alone, which needs no PyTorch.

It packs weights when it loads them: bfloat16 as they are; int8 with a scale for each row; int4 with one for 32 inputs; MXFP4.
It knows one width. Its threads bind themselves to cores, and wait by spinning. HMOE_PACKAGE names the folder of its package.
"""

import importlib.util
import os
from importlib.metadata import PathDistribution
from pathlib import Path

import numpy

from peers.problem import Refused, from_bf16, to_bf16

GROUP = 32
STEP = 64  # inputs that its kernels take at a time
KINDS = {"bf16": ("AMXBF16_MOE", 2.0), "q8_channel": ("AMXInt8_MOE", 1.0), "q8_row": ("AMXInt8_MOE", 1.0),
         "q4": ("AMXInt4_KGroup_MOE", 0.5 + 4 / GROUP), "mxfp4": ("AMXFP4_KGroup_MOE", 0.5 + 4 / GROUP)}  # fmt: skip
# From the newest instructions to the oldest, and what each needs.
VARIANTS = (("avx512_bf16", "avx512_bf16"), ("avx512_vbmi", "avx512_vbmi"), ("avx512_vnni", "avx512_vnni"),
            ("avx512_base", "avx512bw"), ("avx2", "avx2"))  # fmt: skip
E2M1 = numpy.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], numpy.float32)


def extension():
    """(module, name of its variant)"""
    package = Path(os.environ["HMOE_PACKAGE"])
    flags = next(line for line in open("/proc/cpuinfo") if line.startswith("flags")).split()
    for variant, flag in VARIANTS:
        files = sorted((package / "kt_kernel").glob(f"_kt_kernel_ext_{variant}.*.so"))
        if flag in flags and files:
            spec = importlib.util.spec_from_file_location("kt_kernel_ext", files[0])
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            (about,) = package.glob("kt_kernel-*.dist-info")
            return module, f"kt-kernel {PathDistribution(about).version}, {variant}"
    raise Refused("kt-kernel has no module for this CPU")


def nibbles(codes):
    """Two codes in a byte, the first one in its lower half."""
    return codes[..., 0::2] | (codes[..., 1::2] << 4)


def int4(matrix):
    """(codes + 8 in nibbles, bfloat16 scales [rows × groups])"""
    groups = matrix.reshape(len(matrix), -1, GROUP)
    scales = to_bf16(numpy.abs(groups).max(-1) / 7)
    steps = from_bf16(scales)[..., None]
    codes = numpy.clip(numpy.rint(groups / numpy.where(steps == 0, 1, steps)), -8, 7) + 8
    return nibbles(codes.astype(numpy.uint8).reshape(matrix.shape)), scales


def mxfp4(matrix):
    """(codes of E2M1 in nibbles, powers of two as bfloat16 [rows × groups])"""
    groups = matrix.reshape(len(matrix), -1, GROUP)
    largest = numpy.abs(groups).max(-1)
    scales = numpy.exp2(numpy.floor(numpy.log2(numpy.where(largest == 0, 1, largest))) - 2).astype(numpy.float32)
    size = numpy.abs(groups) / scales[..., None]
    codes = numpy.searchsorted((E2M1[1:] + E2M1[:-1]) / 2, size).astype(numpy.uint8)
    codes |= numpy.signbit(groups).astype(numpy.uint8) << 3
    return nibbles(codes.reshape(matrix.shape)), to_bf16(scales)


class Layer:
    def __init__(self, problem, form, threads):
        self.problem = problem
        self.module, self.version = extension()
        name, self.bytes_per_weight = KINDS[form]
        self.kind = getattr(self.module.moe, name, None)
        if self.kind is None:
            raise Refused(f"this kt-kernel has no {name}")
        if problem.d_model % STEP:
            raise Refused(f"its kernels need inputs in multiples of {STEP}")
        problem.round_up(STEP)
        pool = self.module.WorkerPoolConfig()
        pool.subpool_count, pool.subpool_numa_map, pool.subpool_thread_count = 1, [0], [threads]
        self.pool = self.module.CPUInfer(pool)
        self.order = numpy.arange(problem.experts, dtype=numpy.int64)
        self.copies = problem.copies(problem.weights * self.bytes_per_weight)
        self.kept = []
        parts = self.converted(form)
        self.layers = [self.made(parts, form) for _ in range(self.copies)]

    def converted(self, form):
        """[(values, scales or None)] of gate, up and down, each for all experts."""
        convert = {"q4": int4, "mxfp4": mxfp4}.get(form, lambda matrix: (to_bf16(matrix), None))
        parts = ([], [], [])
        for number in range(self.problem.experts):
            for matrix, found in zip(self.problem.padded(number), parts):
                found.append(convert(numpy.ascontiguousarray(matrix)))
        stacked = [[None if part[0] is None else numpy.stack(part) for part in zip(*found)] for found in parts]
        return stacked

    def made(self, parts, form):
        p, moe = self.problem, self.module.moe
        config = moe.MOEConfig(p.experts, p.top_k, p.d_model, p.width, 0)
        config.max_len = max(said["tokens"] for said in p.said)
        config.pool = self.pool.backend_
        if form in ("q4", "mxfp4"):
            config.quant_config.bits, config.quant_config.group_size, config.quant_config.zero_point = 4, GROUP, False
        for name, (values, scales) in zip(("gate", "up", "down"), parts):
            setattr(config, f"{name}_proj", values.ctypes.data)
            setattr(config, f"{name}_scale", 0 if scales is None else scales.ctypes.data)
        layer = self.kind(config)
        self.pool.submit(layer.load_weights_task(self.order.ctypes.data))
        self.pool.sync()
        self.kept = [parts, config]
        return layer

    def load(self, entry):
        count = numpy.array([len(entry.x)], numpy.int32)
        return {"count": count, "x": to_bf16(entry.x), "ids": entry.ids.astype(numpy.int64), "weights": entry.weights.copy(),
                "y": numpy.zeros(entry.x.shape, numpy.uint16)}  # fmt: skip

    def feed(self, copy, loaded):
        pass

    def run(self, copy, loaded):
        self.layers[copy].forward(
            *(loaded["count"].ctypes.data, self.problem.top_k, loaded["ids"].ctypes.data, loaded["weights"].ctypes.data),
            *(loaded["x"].ctypes.data, loaded["y"].ctypes.data, False),
        )

    def result(self, loaded):
        return from_bf16(loaded["y"])


def make(subject, problem, form, threads):
    return Layer(problem, form, threads)
