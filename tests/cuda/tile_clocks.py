#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Counts what a step of each grouped product costs a multiprocessor, from the machine code of kernels/all.cu.

usage: tile_clocks.py NVCC CUOBJDUMP ARCH SOURCE [FLAG...]
           compiles SOURCE for ARCH (80 or 90) and prints a Markdown table
       tile_clocks.py CUOBJDUMP CUBIN ARCH
           the same of a cubin
       tile_clocks.py --self-test

A step is the loop around the products: `k` terms of a tile. Of its ways through, that of whole tiles is counted: the
shortest that multiplies and copies all. Clocks of a multiprocessor for a step, if nothing else ran:
  tensor   multiply-adds ÷ rate
  shared   (bytes that ldmatrix and loads read + bytes that cp.async and stores write) ÷ 128 bytes a clock
  issue    instructions of all warps ÷ 4 schedulers
  L2       bytes of both operands ÷ (bytes of the L2 cache a clock ÷ multiprocessors)
  DRAM     bytes of the weights ÷ (bytes of DRAM a clock ÷ multiprocessors), for tiles of few rows, which read each weight
           for themselves; tiles of many rows find them in the L2 cache
The longest is the bound of the tile. Loads count as if the lanes of a warp read different values.
"""

import heapq
import re
import subprocess
import sys
import tempfile
from pathlib import Path

# Multiply-adds of a multiprocessor in a clock by type, without sparsity, and bytes of the L2 cache and of DRAM in a clock
# and a multiprocessor. A100 80 GB: NVIDIA's white paper (312 TFLOP/s at 1,410 MHz on 108 multiprocessors; L2 5,120 bytes a
# clock; 2.04 TB/s). H100 SXM: data sheet (989 TFLOP/s at 1,830 MHz on 132; 3.35 TB/s); L2 as on A100. mma.sync reaches .63
# of the rate on H100 (arXiv:2402.13499).
DEVICES = {
    "80": {"16": 1024, "tf32": 512, "f32": 64, "L2": 5120 / 108, "DRAM": 2.04e12 / 108 / 1.41e9},
    "90": {"16": 2048 * 0.63, "tf32": 1024 * 0.63, "f32": 128, "L2": 5120 / 132, "DRAM": 3.35e12 / 132 / 1.83e9},
}
WEIGHT_BYTES = {"q8": 34 / 32, "q4": 18 / 32, "q4_offset": 20 / 32, "mxfp4": 17 / 32}
LIMITS = ("tensor", "shared", "issue", "L2", "DRAM")
LINE = re.compile(r"/\*(?P<address>[0-9a-f]{4,})\*/\s+(?P<text>[^;]*);")
SHAPE = re.compile(r"block_shape\{" + ", ".join([r"\(?(?:int\)?)?(\d+)"] * 6) + r"\}")
PRODUCTS = ("project_in", "project_out", "backward_hidden", "backward_rows", "weight_gradient")


def functions(sass):
    """{name: [(address, predicated, operation, text)]}"""
    found, current = {}, None
    for line in sass.splitlines():
        name = re.search(r"Function : (\S+)", line)
        if name:
            current = found.setdefault(name[1], [])
            continue
        match = LINE.search(line)
        if match and current is not None:
            text = match["text"].strip()
            predicated = text.startswith("@")
            words = text.split()
            current.append((int(match["address"], 16), predicated, words[1 if predicated else 0], text))
    return found


class loop:
    """The blocks of a loop, and where each may go on. Edges back are left out."""

    def __init__(self, code, first, last):
        self.code = [line for line in code if first <= line[0] <= last]
        self.first, self.last = first, last
        starts = {first}
        for i, (_, _, operation, text) in enumerate(self.code):
            if operation.startswith(("BRA", "EXIT", "RET")):
                starts |= {target for target in self.targets(text) if first <= target <= last}
                if i + 1 < len(self.code):
                    starts.add(self.code[i + 1][0])
        starts = sorted(starts)
        self.blocks = {s: [] for s in starts}
        place = 0
        for line in self.code:
            while place + 1 < len(starts) and starts[place + 1] <= line[0]:
                place += 1
            self.blocks[starts[place]].append(line)
        self.next = {}
        for place, start in enumerate(starts):
            address, predicated, operation, text = self.blocks[start][-1]
            after = [starts[place + 1]] if place + 1 < len(starts) else []
            if operation.startswith(("EXIT", "RET")):
                after = after if predicated else []
            elif operation.startswith("BRA") and ".DIV" not in operation:
                taken = [t for t in self.targets(text) if t > address and first <= t <= last]
                always = not predicated and "P" not in text.split("BRA", 1)[1].split("0x")[0]
                after = taken if always and self.targets(text)[0] > address else after + taken
            self.next[start] = after

    @staticmethod
    def targets(text):
        return [int(t, 16) for t in re.findall(r"\b0x([0-9a-f]+)", text)[-1:]]


def loops(code):
    """First and last addresses of loops, the innermost first."""
    found = []
    for address, _, operation, text in code:
        if operation.startswith("BRA") and ".DIV" not in operation:
            for target in loop.targets(text):
                if target < address:
                    found.append((target, address))
    return sorted(found, key=lambda ends: ends[1] - ends[0])


def count(lines, *operations):
    return sum(1 for line in lines if line[2].startswith(operations))


def way_through(body, product, products, copies, stores):
    """The lines of the shortest way that has all products, and at least so many copies and stores."""
    facts = {s: (len(b), count(b, product), count(b, "LDGSTS"), count(b, "STS")) for s, b in body.blocks.items()}
    queue, done = [(0, body.first, (0, 0, 0), ())], set()
    while queue:
        length, start, have, way = heapq.heappop(queue)
        if (start, have) in done:
            continue
        done.add((start, have))
        size, multiplied, copied, stored = facts[start]
        have = (have[0] + multiplied, min(copies, have[1] + copied), min(stores, have[2] + stored))
        way, length = (*way, start), length + size
        if body.blocks[start][-1][0] == body.last:
            if have == (products, copies, stores):
                return [line for s in way for line in body.blocks[s]]
            continue
        for after in body.next[start]:
            heapq.heappush(queue, (length, after, have, way))
    return None


def bytes_of(operation):
    """What a warp reads or writes by an operation on shared memory."""
    if operation.startswith("LDSM"):
        return 128 * int(operation[-1])
    return 32 * (16 if "128" in operation else 8 if ".64" in operation else 4)


def step(code, name, arch):
    """What a step of a product costs; None where it is not one, or the code is not understood."""
    shape = SHAPE.search(name)
    kind = next((p for p in PRODUCTS if f"<{p}<" in name or f" {p}<" in name or f"{p}<" in name), None)
    if shape is None or kind is None:
        return None
    m, n, k, warps_m, warps_n, _ = map(int, shape.groups())
    warps = warps_m * warps_n
    kind_of = "tf32" if "tensor_atom_tf32" in name else "f32" if "fma_atom" in name else "16"
    value = 2 if kind_of == "16" else 4
    product, terms = {"16": ("HMMA", 2048), "tf32": ("HMMA", 1024), "f32": ("FFMA", 32)}[kind_of]
    wanted = m * n * k // warps // terms  # instructions of a warp
    weights = re.search(r"(q8_block|q4_offset_block|q4_block|mxfp4_block)", name)
    weights = weights[1].removesuffix("_block") if weights else ""
    weight = WEIGHT_BYTES.get(weights, value)
    whole = [ends for ends in loops(code) if count([c for c in code if ends[0] <= c[0] <= ends[1]], product)]
    copies_a = m * k * value // 512 // warps
    copies_b = -(-int(n * k * weight) // (512 * warps))  # of cells, the last copy is of a part of the warps
    copies, stores = copies_a + copies_b, 0
    for first, last in whole:
        body = loop(code, first, last)
        inner = [ends for ends in whole if first <= ends[0] and ends[1] <= last and ends != (first, last)]
        in_loop = count(body.code, product)
        if in_loop > wanted or wanted % in_loop:
            continue
        lines = way_through(body, product, in_loop, copies, stores)
        if lines is None:
            continue
        times = wanted // in_loop
        if times > 1 and not inner:
            continue
        heavy = []
        if times > 1:
            heavy = [line for line in lines if inner[0][0] <= line[0] <= inner[0][1]]
        lines = lines + heavy * (times - 1)
        device = DEVICES[arch]
        read = sum(bytes_of(line[2]) for line in lines if line[2].startswith(("LDS", "LDSM")))
        written = (m * value + n * weight) * k / warps
        clocks = {
            "tensor": m * n * k / device[kind_of],
            "shared": warps * (read + written) / 128,
            "issue": warps * len(lines) / 4,
            "L2": (m * value + n * weight) * k / device["L2"],
            "DRAM": n * k * weight / device["DRAM"] if m == 32 else 0,
        }
        return {
            "kind": kind, "values": {"16": "16 bits", "tf32": "tf32", "f32": "float"}[kind_of], "weights": weights,
            "tile": f"{m} × {n} × {k}", "rows": m, "clocks": clocks, "lines": len(lines),
            "products": count(lines, product), "reads": count(lines, "LDS"),
            "writes": count(lines, "LDGSTS", "STS"),
        }  # fmt: skip
    return None


def table(sass, names, arch):
    rows = {}
    for name, code in functions(sass).items():
        found = step(code, names.get(name, name), arch)
        if not found:
            continue
        clocks = found["clocks"]
        cells = [found["kind"], found["values"] + (f", weights in {found['weights']}" if found["weights"] else ""),
                 found["tile"], found["products"], found["reads"], found["writes"], found["lines"],
                 *(round(clocks[limit]) or "" for limit in LIMITS), max(LIMITS, key=clocks.get)]  # fmt: skip
        order = (PRODUCTS.index(found["kind"]), found["values"], found["weights"], -found["rows"])
        if order not in rows or rows[order][6] < found["lines"]:  # of gates and 16-bit types, the longest
            rows[order] = cells
    head = ["product", "values", "tile", "products", "shared reads", "shared writes", "instructions", *LIMITS, "bound"]
    lines = [f"| {' | '.join(head)} |", "|---|---|---|" + "---:|" * (len(head) - 4) + "---|"]
    return lines + [f"| {' | '.join(map(str, rows[order]))} |" for order in sorted(rows)]


def demangled(names):
    result = subprocess.run(["c++filt"], input="\n".join(names), stdout=subprocess.PIPE, text=True, check=True)
    return dict(zip(names, (re.sub(r"hmoe::|backends::|cuda_detail::", "", x) for x in result.stdout.splitlines())))


def self_test():
    copies = "".join(f"/*{0x20 + 16 * i:04x}*/ LDGSTS.E.BYPASS.128 [R1], [R2.64] ;\n" for i in range(8))
    reads = "".join(f"/*{0x200 + 16 * i:04x}*/ LDSM.16.M88.4 R4, [R1] ;\n" for i in range(16))
    products = "".join(f"/*{0x400 + 16 * i:04x}*/ HMMA.16816.F32.BF16 R4, R8, R12, R4 ;\n" for i in range(64))
    slow = "".join(f"/*{0x1000 + 16 * i:04x}*/ @P1 LDGSTS.E.BYPASS.128 [R1], [R2.64] ;\n" for i in range(20))
    sass = (
        "Function : project_in\n/*0000*/ MOV R1, R2 ;\n/*0010*/ @P0 BRA 0x1000 ;\n" + copies + reads + products
        + "/*0f00*/ @P2 BRA 0x10 ;\n/*0f10*/ EXIT ;\n" + slow + "/*2000*/ BRA 0x200 ;\n"
    )  # fmt: skip
    name = "run_tiles<project_in<2ul, bfloat16, tensor_atom_16<bfloat16>, block_shape{128, 128, 32, 2, 2, 2}> >"
    found = step(functions(sass)["project_in"], name, "80")
    clocks = {key: round(value) for key, value in found["clocks"].items()}
    # 4 warps: 1 branch, 8 copies, 16 reads, 64 products, 1 branch; (16 + 8) · 512 bytes each; 16 KiB from L2
    if found["lines"] != 90 or clocks != {"tensor": 512, "shared": 384, "issue": 90, "L2": 346, "DRAM": 0}:
        sys.exit(f"self-test: {found}")
    if table(sass, {"project_in": name}, "80")[-1].split(" | ")[-1] != "tensor |":
        sys.exit("self-test: the bound")


def main(arguments):
    if arguments == ["--self-test"]:
        return self_test()
    if len(arguments) == 3:
        cuobjdump, cubin, arch = arguments
        sass = subprocess.run([cuobjdump, "-sass", cubin], stdout=subprocess.PIPE, text=True, check=True).stdout
    elif len(arguments) >= 4:
        nvcc, cuobjdump, arch, source, *flags = arguments
        with tempfile.TemporaryDirectory() as folder:
            cubin = str(Path(folder, "kernels.cubin"))
            subprocess.run([nvcc, "-std=c++20", "-cubin", f"-arch=sm_{arch}", *flags, "-o", cubin, source], check=True)
            sass = subprocess.run([cuobjdump, "-sass", cubin], stdout=subprocess.PIPE, text=True, check=True).stdout
    else:
        sys.exit(__doc__)
    print("\n".join(table(sass, demangled(list(functions(sass))), arch)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
