#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Compiles kernels for one architecture and checks that none spills registers.

usage: registers.py NVCC ARCH SOURCE [FLAG...]
           prints warnings, and registers, shared memory and stack of each kernel
       registers.py --markdown NVCC ARCH,ARCH... SOURCE [FLAG...]
           prints the table of docs/backends/cuda_kernels.md
       registers.py --self-test
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

KERNEL = re.compile(
    r"Compiling entry function '(?P<name>\w+)' for '(?P<arch>\w+)'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.DOTALL,
)


def kernels(output):
    """What ptxas says of each kernel."""
    for found in KERNEL.finditer(output):
        shared = re.search(r"(\d+) bytes smem", found["rest"])
        yield {
            "name": found["name"],
            "registers": int(found["registers"]),
            "shared": int(shared[1]) if shared else 0,
            "stack": int(found["stack"]),
            "spills": int(found["stores"]) + int(found["loads"]),
        }


def demangled(names):
    result = subprocess.run(["c++filt", *names], stdout=subprocess.PIPE, text=True, check=True)
    return [re.sub(r"hmoe::|backends::|cuda_detail::|void ", "", line) for line in result.stdout.splitlines()]


# The kernels of the table in the docs, in its order.
TABLE = (
    "make_schedules", "project_in", "project_out", "backward_hidden", "backward_rows", "weight_gradient", "sum_columns",
    "combine_rows", "weigh_slots",
)  # fmt: skip


def row_of(name):
    """(kernel, values, tile) of a demangled name as the table has them; None where it does not."""
    found = re.match(r"(?:run_tiles<)?(\w+)<(.*)", name)
    if found is None or found[1] not in TABLE:
        return None
    kernel, arguments = found[1], found[2].split(">(")[0]
    if "half" in arguments or re.match(r"1ul", arguments):  # as bfloat16; silu gates stand for all
        return None
    if kernel == "make_schedules":
        return kernel, f"{arguments[0]} products", ""
    values = "tf32" if "tensor_atom_tf32" in arguments else "bfloat16" if "bfloat16" in arguments else "float"
    weights = re.search(r"\b(?:basic_)?(\w+?)_block\b", arguments)
    if weights:
        values += f", weights in {weights[1]}"
    shape = re.search(r"block_shape\{\D*(\d+), \D*(\d+)", arguments)
    return kernel, values, f"{shape[1]} × {shape[2]}" if shape else ""


def table(outputs):
    """Lines of Markdown of {architecture: ptxas's output}."""
    rows = {}
    for arch, output in outputs.items():
        found = list(kernels(output))
        for name, k in zip(demangled([k["name"] for k in found]), found):
            row = row_of(name)
            if row is not None:
                registers, shared = rows.setdefault(row, ({}, k["shared"]))
                registers[arch] = max(registers.get(arch, 0), k["registers"])
    names = " / ".join(f"{int(arch) / 10:.1f}" for arch in outputs)
    lines = [f"| kernel | values | tile | registers on {names} | static shared memory |", "|---|---|---|---|---:|"]
    tiles = lambda tile: -int(tile.split()[0]) if tile else 0
    for row in sorted(rows, key=lambda row: (TABLE.index(row[0]), row[1], tiles(row[2]))):
        registers, shared = rows[row]
        counts = " / ".join(str(registers.get(arch, "")) for arch in outputs)
        lines.append(f"| `{row[0]}` | {row[1]} | {row[2]} | {counts} | {shared} B |")
    return lines


def problems(output):
    found = list(kernels(output))
    if not found:
        return ["ptxas reported no kernel"]
    return [f"{k['name']} spills {k['spills']} bytes of registers" for k in found if k["spills"] != 0]


def compile_kernels(nvcc, arch, source, flags):
    with tempfile.TemporaryDirectory() as folder:
        command = [nvcc, "-std=c++20", "-cubin", f"-arch=sm_{arch}", "-Xptxas=-v", *flags]
        command += ["-o", str(Path(folder, "kernels.cubin")), source]
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)


def self_test():
    line = (
        "ptxas info    : Compiling entry function '_Z3addPf' for 'sm_80'\n"
        "ptxas info    : Function properties for _Z3addPf\n"
        "    0 bytes stack frame, {} bytes spill stores, {} bytes spill loads\n"
        "ptxas info    : Used 12 registers, used 1 barriers, 512 bytes smem, 360 bytes cmem[0]\n"
    )
    sound = problems(line.format(0, 0))
    spilling = problems(line.format(8, 4))
    none = problems("")
    name = "run_tiles<project_in<2ul, bfloat16, basic_q4_block<32ul>, gated<silu>, tensor_atom_16<bfloat16>, block_shape{32, 64, 64, 1, 4, 3}> >(x)"
    if row_of(name) != ("project_in", "bfloat16, weights in q4", "32 × 64") or row_of("route_by_warps<256u>(x)"):
        sys.exit(f"self-test: {row_of(name)}")
    if sound or spilling != ["_Z3addPf spills 12 bytes of registers"] or not none:
        sys.exit(f"self-test: {sound}, {spilling}, {none}")


def main():
    if sys.argv[1:] == ["--self-test"]:
        self_test()
        return 0
    if sys.argv[1:2] == ["--markdown"] and len(sys.argv) > 4:
        nvcc, archs, source, *flags = sys.argv[2:]
        results = {arch: compile_kernels(nvcc, arch, source, flags) for arch in archs.split(",")}
        print("\n".join(table({arch: result.stdout for arch, result in results.items()})))
        return max(abs(result.returncode) for result in results.values())
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    result = compile_kernels(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:])
    if result.returncode != 0:
        print(result.stdout)
        return 1
    print("\n".join(line for line in result.stdout.splitlines() if "warning" in line))
    found = list(kernels(result.stdout))
    for name, k in zip(demangled([k["name"] for k in found]), found):
        print(f"{k['registers']:3} registers {k['shared']:6} B shared {k['stack']:5} B stack  {name[:200]}")
    failed = problems(result.stdout)
    print("\n".join(failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
