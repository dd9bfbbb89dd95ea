#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Checks which header of include/hmoe includes which: no upward edge, no cycle, no stray third-party header; and that
every header puts the macros of other headers aside first and brings them back last.

usage: include_graph.py INCLUDE_DIRECTORY    check the headers under INCLUDE_DIRECTORY/hmoe
       include_graph.py --self-test          show that planted mistakes are caught
"""

import re
import sys
import tempfile
from pathlib import Path

MIDDLE = {"execution", "experts", "routing", "losses", "dispatch", "statistics", "training"}
BELOW_UMBRELLA = {"core", *MIDDLE, "layer", "backends", "compress", "io", "probes", "parallel", "interop"}

# Folder (or file beside them) -> the folders that it may include besides its own. version.hpp is open to all.
MAY_INCLUDE = {
    "version.hpp": {"core"},
    "fwd.hpp": {"core"},
    "core": {"fwd.hpp"},
    "execution": {"core", "fwd.hpp"},
    # Stages see the concepts of context, executor and the operations of a backend.
    **{folder: {"core", "execution", "fwd.hpp"} for folder in MIDDLE - {"execution"}},
    "interop": {"core", "fwd.hpp"},
    "backends": {"core", *MIDDLE, "interop", "fwd.hpp"},
    "layer": {"core", *MIDDLE, "fwd.hpp"},
    "compress": {"core", *MIDDLE, "layer", "fwd.hpp"},
    "io": {"core", *MIDDLE, "layer", "fwd.hpp"},
    "probes": {"core", "execution", "io", "fwd.hpp"},
    "parallel": {"core", *MIDDLE, "layer", "io", "fwd.hpp"},
    "compress.hpp": {"compress", "core"},
    "hmoe.hpp": {*BELOW_UMBRELLA, "fwd.hpp"},
    "testing": {*BELOW_UMBRELLA, "fwd.hpp", "hmoe.hpp"},
}
THIRD_PARTY_ALLOWED = re.compile(r"(backends|io|parallel|interop)/|core/huge_pages\.hpp$|execution/(openmp|tbb)\.hpp$|probes/counters\.hpp$")

MACROS_OFF, MACROS_ON = "core/macros_off.hpp", "core/macros_on.hpp"
WITHOUT_MACROS = {MACROS_OFF, MACROS_ON, "core/compiler.hpp"}

STANDARD_HEADERS = set(
    """algorithm any array atomic barrier bit bitset cassert cerrno cfenv cfloat charconv chrono cinttypes climits
    clocale cmath codecvt compare complex concepts condition_variable coroutine csetjmp csignal cstdarg cstddef
    cstdint cstdio cstdlib cstring ctime cuchar cwchar cwctype deque exception execution filesystem format
    forward_list fstream functional future initializer_list iomanip ios iosfwd iostream istream iterator latch
    limits list locale map memory memory_resource mutex new numbers numeric optional ostream queue random ranges
    ratio regex scoped_allocator semaphore set shared_mutex source_location span sstream stack stdexcept stop_token
    streambuf string string_view strstream syncstream system_error thread tuple type_traits typeindex typeinfo
    unordered_map unordered_set utility valarray variant vector version""".split()
)

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"]', re.MULTILINE)


def read_graph(include_directory):
    """Each header's path below include/hmoe, with its library includes and its third-party includes."""
    root = include_directory / "hmoe"
    library, third_party = {}, {}
    for file in sorted(path for path in root.rglob("*") if path.suffix in {".hpp", ".cuh", ".h"}):
        name = file.relative_to(root).as_posix()
        library[name], third_party[name] = [], []
        for bracket, target in INCLUDE.findall(file.read_text(encoding="utf-8")):
            beside = (file.parent / target).resolve()
            if bracket == '"' and beside.is_relative_to(root.resolve()):
                library[name].append(beside.relative_to(root.resolve()).as_posix())
            elif target.startswith("hmoe/"):
                library[name].append(target.removeprefix("hmoe/"))
            elif target not in STANDARD_HEADERS:
                third_party[name].append(target)
    return library, third_party


def folder_of(name):
    return name.split("/")[0]


def find_cycle(library):
    """Some cycle of headers, as the list of its members, or an empty list."""
    finished, path = set(), []

    def visit(name):
        if name in path:
            return path[path.index(name) :] + [name]
        if name in finished or name not in library:
            return []
        path.append(name)
        for target in library[name]:
            if cycle := visit(target):
                return cycle
        path.pop()
        finished.add(name)
        return []

    for name in library:
        if cycle := visit(name):
            return cycle
    return []


def problems_of(include_directory):
    library, third_party = read_graph(include_directory)
    problems = [] if library else [f"no header found under {include_directory}/hmoe"]
    for name, targets in library.items():
        folder = folder_of(name)
        if folder not in MAY_INCLUDE:
            problems.append(f"{name}: {folder} has no place in the include graph; give it one in {Path(__file__).name}")
            continue
        for target in targets:
            if target not in library:
                problems.append(f"{name} includes {target}, which does not exist")
            elif folder_of(target) not in {*MAY_INCLUDE[folder], folder, "version.hpp"}:
                allowed = ", ".join(sorted(MAY_INCLUDE[folder])) or "nothing"
                problems.append(f"{name} includes {target}: {folder} may include only {allowed}")
    problems += [f"{name}: what nvcc alone compiles belongs under backends/cuda" for name in library
                 if name.endswith(".cuh") and not name.startswith("backends/cuda/")]
    for name, targets in third_party.items():
        if not THIRD_PARTY_ALLOWED.match(name):
            problems += [f"{name} includes <{target}>, which is neither standard nor ours" for target in targets]
    problems += [f"{name}: it must include {MACROS_OFF} first and {MACROS_ON} last" for name, targets in library.items()
                 if name not in WITHOUT_MACROS and (targets[:1] != [MACROS_OFF] or targets[-1] != MACROS_ON)]  # fmt: skip
    if cycle := find_cycle(library):
        problems.append("cycle: " + " -> ".join(cycle))
    return problems


def self_test():
    """Plants one mistake at a time into a sound tree; each must be among the problems found."""
    sound = {
        "version.hpp": "",
        "core/view.hpp": "#include <hmoe/version.hpp>\n#include <cstddef>",
        "core/matrix.hpp": '#include "view.hpp"',
        "routing/top_k.hpp": "#include <hmoe/core/view.hpp>",
        "experts/glu.hpp": "#include <hmoe/core/matrix.hpp>",
        "execution/openmp.hpp": "#include <omp.h>",
        "backends/eigen.hpp": "#include <Eigen/Core>\n#include <hmoe/experts/glu.hpp>",
        "layer/moe_layer.hpp": "#include <hmoe/routing/top_k.hpp>",
        "hmoe.hpp": "#include <hmoe/layer/moe_layer.hpp>",
        "testing/laws.hpp": "#include <hmoe/hmoe.hpp>",
    }
    mistakes = {
        "upward edge": ("core/view.hpp", "#include <hmoe/layer/moe_layer.hpp>", "core may include only"),
        "edge between middle folders": ("routing/top_k.hpp", "#include <hmoe/experts/glu.hpp>", "routing may include only"),
        "edge to testing": ("hmoe.hpp", "#include <hmoe/testing/laws.hpp>", "hmoe.hpp may include only"),
        "cycle": ("core/view.hpp", "#include <hmoe/core/matrix.hpp>", "cycle: core/matrix.hpp -> core/view.hpp"),
        "indented cycle by a relative path": ("core/view.hpp", '  #  include "matrix.hpp"', "cycle: "),
        "third-party header": ("routing/top_k.hpp", "#include <Eigen/Core>", "neither standard nor ours"),
        "OpenMP outside its executor": ("core/view.hpp", "#include <omp.h>", "neither standard nor ours"),
        "missing header": ("core/view.hpp", "#include <hmoe/core/gone.hpp>", "does not exist"),
        "unknown folder": ("misc/bits.hpp", "", "has no place"),
        "device code elsewhere": ("experts/glu.cuh", "", "belongs under backends/cuda"),
    }
    failed = 0
    off, on = f"#include <hmoe/{MACROS_OFF}>", f"#include <hmoe/{MACROS_ON}>"
    bare = {"macros left as they are": [], "macros not brought back": [off], "text before macros are aside": ["#include <hmoe/version.hpp>", off, on]}
    mistakes |= {mistake: ("dispatch/bare.hpp", "\n".join(lines), "must include") for mistake, lines in bare.items()}
    for mistake, (victim, line, expected) in {"nothing": ("hmoe.hpp", "", ""), **mistakes}.items():
        with tempfile.TemporaryDirectory() as directory:
            for name, text in {MACROS_OFF: "", MACROS_ON: "", **sound, victim: sound.get(victim, "") + "\n" + line}.items():
                if name not in {*WITHOUT_MACROS, "dispatch/bare.hpp"}:
                    text = "\n".join([off, text, on])
                file = Path(directory) / "hmoe" / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text, encoding="utf-8")
            found = problems_of(Path(directory))
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
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
