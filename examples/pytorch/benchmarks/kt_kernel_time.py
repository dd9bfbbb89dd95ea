# SPDX-License-Identifier: MIT
"""Time of kt-kernel's experts in bfloat16 (its extension module, without torch), for experts.py: one JSON line.

    python kt_kernel_time.py FOLDER D_MODEL WIDTH EXPERTS CHOICES THREADS SECONDS TOKENS...

FOLDER: where `pip install --no-deps --target FOLDER kt-kernel` unpacked it. A process of its own, since its threads bind
themselves to cores and spin. That its results are right: scripts/bench peers.
"""

import json
import pathlib
import sys
import time

import numpy
from cold_cache import empty_cache

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "benchmarks"))


def main():
    import os

    folder, *numbers = sys.argv[1:]
    d, h, experts, choices, threads = map(int, numbers[:5])
    seconds, tokens = float(numbers[5]), [int(n) for n in numbers[6:]]
    os.environ["HMOE_PACKAGE"] = folder
    from competitors.kt_moe import extension

    module, version = extension()
    pool = module.WorkerPoolConfig()
    pool.subpool_count, pool.subpool_numa_map, pool.subpool_thread_count = 1, [0], [threads]
    cpu = module.CPUInfer(pool)
    config = module.moe.MOEConfig(experts, choices, d, h, 0)
    config.max_len, config.pool = max(tokens), cpu.backend_
    rng = numpy.random.default_rng(0)

    def bf16(*shape):
        return (rng.standard_normal(shape, numpy.float32) * numpy.float32(0.02)).view(numpy.uint32).__rshift__(16).astype(numpy.uint16)

    weights = {name: bf16(experts, *shape) for name, shape in (("gate", (h, d)), ("up", (h, d)), ("down", (d, h)))}
    for name, values in weights.items():
        setattr(config, f"{name}_proj", values.ctypes.data)
        setattr(config, f"{name}_scale", 0)
    layer = module.moe.AMXBF16_MOE(config)
    order = numpy.arange(experts, dtype=numpy.int64)
    cpu.submit(layer.load_weights_task(order.ctypes.data))
    cpu.sync()
    best = {}
    for count in tokens:
        x, y = bf16(count, d), numpy.zeros((count, d), numpy.uint16)
        ids = numpy.stack([rng.permutation(experts)[:choices] for _ in range(count)]).astype(numpy.int64)
        shares, length = rng.random((count, choices), numpy.float32), numpy.array([count], numpy.int32)
        arguments = (length.ctypes.data, choices, ids.ctypes.data, shares.ctypes.data, x.ctypes.data, y.ctypes.data, False)
        end, rounds, best[count] = time.perf_counter() + seconds, 0, float("inf")
        while rounds < 4 or time.perf_counter() < end:
            empty_cache()
            begin = time.perf_counter()
            layer.forward(*arguments)
            if rounds:  # the first one warms up
                best[count] = min(best[count], time.perf_counter() - begin)
            rounds += 1
    print(json.dumps({"version": version, "seconds": best}))


if __name__ == "__main__":
    main()
