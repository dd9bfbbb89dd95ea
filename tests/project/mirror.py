#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Holds tests/ against include/hmoe/: include/hmoe/X/y.hpp is tested by tests/X/y.cpp.

Each header has a test at its path, stands in ELSEWHERE with the file that tests it, or, under backends/cuda, is included
by a program of tests/cuda, whose programs are cut by what a launch does. Each test stands at a header's path, is called
y_ASPECT beside it or laws…, or stands in WHOLE.
usage: mirror.py SOURCE_DIR, or mirror.py --self-test
"""
import re
import sys
import tempfile
from pathlib import Path

# Header -> what tests it, below tests/: mistakes that a compiler refuses, programs with flags of their own, and parts that
# only the whole can be run with.
ELSEWHERE = {
    "core/absent_components": "project/compile_fail/absent/backend_simd_absent.cpp",
    "core/assertions": "project/programs/assert_view.cpp",
    "core/compiler": "project/refused_compilers.py",
    "core/initialization": "experts/glu.cpp",
    "core/macros_off": "project/programs/macros_of_others.cpp",
    "core/macros_on": "project/programs/macros_of_others.cpp",
    "core/packed_values": "io/packed_checkpoint.cpp",
    "core/space": "project/compile_fail/device_view_for_host.cpp",
    "testing/backend_bank_laws": "testing/backend_laws.cpp",
    "testing/backend_report": "testing/backend_laws.cpp",
    "compress/possible_bank": "compress/assign_formats.cpp",
    "experts/diagnosis": "project/compile_fail/expert_without_backward.cpp",
    "parallel/across_ranks": "parallel/expert_parallel.cpp",
    "parallel/improvement": "parallel/by_cost.cpp",
    "parallel/packing": "parallel/by_cost.cpp",
    "parallel/rows_in_place": "parallel/expert_parallel.cpp",
    "parallel/thread_group": "parallel/threads.cpp",
    "io/packed_checkpoint_writer": "io/packed_checkpoint.cpp",
    "io/packed_kinds": "io/packed_checkpoint.cpp",
    "interop/intrinsics": "project/programs/native_warnings.cpp",
    "layer/argument_checks": "layer/moe_layer_errors.cpp",
    "routing/non_finite": "routing/laws_of_exclusion.cpp",
    "routing/router_policy": "routing/router.cpp",
    **{f"io/models/{name}": "golden/models.cpp" for name in (
        "families", "family", "layer_description", "load_layer", "norm_topk_prob", "families/dbrx", "families/deepseek",
        "families/ernie4_5_moe", "families/gemma4", "families/gpt_oss", "families/granitemoe",
        "families/hunyuan_v1_moe", "families/jetmoe", "families/llama4", "families/longcat_flash", "families/mixtral",
        "families/nemotron_h", "families/qwen_moe", "families/switch_transformers")},
    "backends/cuda": "cuda/layer.cu",  # an umbrella
    "compress": "project/doc_blocks/compress.inc",  # another one
    "backends/simd/activation_block": "backends/simd/channel_formats.cpp",
    "backends/simd/elementwise": "backends/simd/activations.cpp",
    "backends/simd/ffn_kind": "backends/simd/ffn_backward.cpp",
    "backends/simd/ffn_work": "backends/simd/ffn_backward.cpp",
    "backends/simd/int8_dot": "backends/simd/quantized_formats.cpp",
    "backends/simd/kernel": "backends/simd/packing.cpp",
    "backends/simd/packed_experts": "backends/simd/packed_bank.cpp",
    "backends/simd/packed_ffn": "backends/simd/packed_bank.cpp",
    "backends/simd/packed_kernels": "backends/simd/packed_forward.cpp",
    "backends/simd/products": "backends/simd.cpp",
    "backends/simd/tile": "backends/simd/packed_bank.cpp",
    "backends/simd/work_sizes": "backends/simd/packed_forward.cpp",
}
# Tests of several headers together.
WHOLE = {
    "main",  # doctest's
    "backends/simd/ffn_memory",  # of both passes
    "backends/simd/ffn_memory_layers",  # and of layers, packed ones, too
    "dispatch/eigen",  # all strategies with that backend
    "golden/files",  # against other implementations
    "golden/importance",
    "golden/losses",
    "golden/models",
    "golden/routers",
}
CUDA = "backends/cuda/"
BASELINES = {"backends/cuda/cublas.cuh"}  # what benchmarks/cuda compares with


def included_from(sources, include_directory):
    """The headers that these files include, directly or not."""
    found, open_files = set(), list(sources)
    while open_files:
        for target in re.findall(r"^ *# *include *<hmoe/([^>]+)>", open_files.pop().read_text(encoding="utf-8"), re.MULTILINE):
            if target not in found and (include_directory / target).is_file():
                found.add(target)
                open_files.append(include_directory / target)
    return found


def problems_of(source_directory, elsewhere=ELSEWHERE, whole=WHOLE):
    include, tests = source_directory / "include/hmoe", source_directory / "tests"
    headers = {p.relative_to(include).as_posix() for p in include.rglob("*.?*") if p.suffix in {".hpp", ".cuh"}}
    of_device = {h for h in headers if h.startswith(CUDA)}
    names = {h.removesuffix(".hpp") for h in headers - of_device}
    files = {p.relative_to(tests).with_suffix("").as_posix() for p in tests.rglob("*.cpp")}
    files = {f for f in files if f.split("/")[0] not in {"cuda", "fuzz", "project", "support"}}

    problems = [f"include/hmoe/{name}.hpp has no tests/{name}.cpp" for name in sorted(names - files - set(elsewhere))]
    reached = included_from(tests.glob("cuda/**/*.cu"), include)
    problems += [f"include/hmoe/{h} is included by no program of tests/cuda" for h in sorted(of_device - reached - BASELINES)]
    for test in sorted(files - names - whole):
        folder, _, name = test.rpartition("/")
        beside = {n.rpartition("/")[2] for n in names if n.rpartition("/")[0] == folder}
        if name != "laws" and not name.startswith("laws_of_") and not any(name.startswith(b + "_") for b in beside):
            problems.append(f"tests/{test}.cpp tests no include/hmoe/{test}.hpp: name it after the header that it tests")
    for name, test in elsewhere.items():
        if name not in names or name in files:
            problems.append(f"{Path(__file__).name}: {name}.hpp is no exception: there is no such header, or it has a test")
        if not (tests / test).is_file():
            problems.append(f"{Path(__file__).name}: tests/{test}, which tests {name}.hpp, is not there")
    problems += [f"{Path(__file__).name}: tests/{test}.cpp is not there" for test in sorted(whole - files)]
    return problems


def self_test():
    sound = {
        "include/hmoe/core/view.hpp": "", "tests/core/view.cpp": "", "tests/core/view_edges.cpp": "",
        "tests/core/laws_of_views.cpp": "", "include/hmoe/core/part.hpp": "", "tests/main.cpp": "",
        "include/hmoe/backends/cuda/a.cuh": "#include <hmoe/backends/cuda/b.hpp>", "include/hmoe/backends/cuda/b.hpp": "",
        "tests/cuda/all.cu": "#include <hmoe/backends/cuda/a.cuh>", "tests/support/random.cpp": "",
    }  # fmt: skip
    mistakes = {
        "a header without a test": ("include/hmoe/core/plan.hpp", "", "has no tests/core/plan.cpp"),
        "a test without a header": ("tests/core/plan.cpp", "", "tests/core/plan.cpp tests no"),
        "a test in another folder": ("tests/routing/view.cpp", "", "tests/routing/view.cpp tests no"),
        "a device header that no test includes": ("include/hmoe/backends/cuda/c.cuh", "", "c.cuh is included by no program"),
        "an exception with a test": ("tests/core/part.cpp", "", "part.hpp is no exception"),
        "an exception without its test": ("tests/core/view.cpp", None, "tests/core/view.cpp, which tests core/part.hpp"),
    }
    failed = 0
    for mistake, (victim, text, expected) in {"nothing": ("tests/main.cpp", "", ""), **mistakes}.items():
        with tempfile.TemporaryDirectory() as directory:
            for name, content in {**sound, victim: text}.items():
                if content is not None:
                    file = Path(directory) / name
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_text(content, encoding="utf-8")
            found = problems_of(Path(directory), {"core/part": "core/view.cpp"}, {"main"})
        caught = any(expected in problem for problem in found) if expected else not found
        failed += not caught
        print(f"{'ok' if caught else 'FAILED'}: planted {mistake}, found {found}")
    return failed


def main():
    if sys.argv[1:] == ["--self-test"]:
        return 1 if self_test() else 0
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    problems = problems_of(Path(sys.argv[1]))
    print("\n".join(problems) or "tests/ mirrors include/hmoe/")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
