#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Compiles every public header on its own: with what it includes itself, and nothing else, behind macros that other
headers may have.

usage: headers_alone.py INCLUDE_DIR SCRATCH_DIR COMPILER FLAG... [--component NAME FLAG...]... [--without NAME]...
       headers_alone.py --self-test SCRATCH_DIR COMPILER

Headers named NAME.hpp or in a folder NAME/ are those of a component and get its flags, too; those of one that is not
there are left out. Reading the standard library
again and again would take most of the time. So a header that includes another one, directly or not, may find that one
precompiled: what the compiler sees is the same. Headers of which this is made are the ones that save most.
"""

import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


# Each use is an error. (What such macros are for others: programs/macros_of_others.cpp.)
MACROS = "".join(f"#define {name}(...) @\n" for name in ("min", "max", "check", "require", "fail"))


def includes_of(text):
    """What a header includes whatever macros are defined."""
    found, depth = [], 0
    for line in text.splitlines():
        if re.match(r"\s*#\s*if", line):
            depth += 1
        elif re.match(r"\s*#\s*endif", line):
            depth -= 1
        elif depth == 0 and (include := re.match(r"\s*#\s*include <([^>]+)>", line)):
            found.append(include[1])
    return found


def closures(texts):
    """name → all that it includes, directly or not."""
    direct = {name: includes_of(text) for name, text in texts.items()}
    done = {}

    def visit(name):
        if name not in done:
            done[name] = set()  # a circle is no matter of this check
            for other in direct.get(name, ()):
                done[name] |= {other} | visit(other)
        return done[name]

    return {name: visit(name) for name in texts}


def precompiled(names, closure):
    """name → the header that is precompiled for it, or None; chosen so that the least is left to read."""
    # Reading one of ours takes a fifth of the time of one of the standard library, one of another library eight times it.
    weight = {
        name: 0.2 if name in closure else 8.0 if "/" in name and not name.endswith(".h") else 1.0 for all_ in closure.values() for name in all_
    }

    def cost(of):
        return sum(weight[name] for name in closure[of])

    chosen = {name: None for name in names}
    while True:
        best, most = None, 0.0
        for hub in names:
            if hub in chosen.values():
                continue
            gain = -1.5 * cost(hub)  # it is written as well as read
            for name, other in chosen.items():
                if hub in closure[name]:
                    gain += max(0.0, cost(hub) - (cost(other) if other else 0.0))
            if gain > most:
                best, most = hub, gain
        if best is None:
            return chosen
        for name, other in chosen.items():
            if best in closure[name] and (other is None or cost(best) > cost(other)):
                chosen[name] = best


def compile_(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return done.returncode == 0, done.stdout


def check(include, scratch, command, components, jobs):
    """(header, succeeded, output) of every header."""
    texts = {str(path.relative_to(include)): path.read_text() for path in sorted(include.rglob("*.hpp"))}
    closure = closures(texts)
    groups = {}
    for name in texts:
        component = next((c for c in components if re.search(rf"/{c}(\.hpp$|/)", name)), None)
        if components.get(component, []) is not None:
            groups.setdefault(component, []).append(name)
    scratch.mkdir(parents=True, exist_ok=True)

    def of_header(name, hub, flags, folder):
        if hub is None:
            prefix = ["-include", os.devnull]
        else:
            prefix = ["-include", str(folder / (hub.replace("/", "_")))]
        source = folder / (name.replace("/", "_") + ".cpp")
        source.write_text(f"{MACROS}#include <{name}>\n")
        return name, *compile_([*command, *flags, *prefix, "-fsyntax-only", str(source)])

    def of_hub(name, flags, folder):
        header = folder / name.replace("/", "_")
        header.write_text(f"{MACROS}#include <{name}>\n")
        return name, *compile_([*command, *flags, "-x", "c++-header", str(header), "-o", str(header) + ".gch"])

    with ThreadPoolExecutor(jobs) as pool:
        pending = []
        for component, names in groups.items():
            flags, folder = components.get(component, []), scratch / (component or "all")
            folder.mkdir(exist_ok=True)
            hubs = precompiled(names, closure)
            used = sorted({hub for hub in hubs.values() if hub})
            ready = list(pool.map(lambda hub: of_hub(hub, flags, folder), used))
            yield from ready
            good = {hub for hub, well, _ in ready if well}
            for name in names:
                if name not in used:
                    hub = hubs[name] if hubs[name] in good else None
                    pending.append(pool.submit(of_header, name, hub, flags, folder))
        for each in pending:
            yield each.result()


def parse(arguments):
    """The command, and name → flags of each component, None for one that is not there."""
    parts = [[]]
    for argument in arguments:
        if argument in ("--component", "--without"):
            parts.append([argument])
        else:
            parts[-1].append(argument)
    return parts[0], {part[1]: part[2:] if part[0] == "--component" else None for part in parts[1:]}


def self_test(scratch, compiler):
    headers = {
        "x/views.hpp": "#include <vector>\ninline std::vector<int> v;\n",
        "x/user.hpp": "#include <x/views.hpp>\ninline auto n = v.size();\n",
        "x/other.hpp": "#include <x/views.hpp>\ninline auto m = v.size();\n",
        "x/third.hpp": "#include <x/views.hpp>\ninline auto k = v.size();\n",
        "x/forgets.hpp": "#include <x/views.hpp>\ninline std::map<int, int> table;\n",
        "x/forgets_all.hpp": "inline std::vector<int> w;\n",
        "x/maybe.hpp": "#ifdef NEVER\n#include <x/views.hpp>\n#endif\ninline auto s = v.size();\n",
        "x/harmed.hpp": "#include <x/views.hpp>\ninline int require(int a) { return a; }\n",
        "x/unharmed.hpp": "#undef require\n#include <x/views.hpp>\ninline int require(int a) { return a; }\n",
        "x/gpu/device.hpp": "#include <x/views.hpp>\nstatic_assert(DEVICE == 1);\n",
        "x/absent.hpp": "#include <absent>\n",
    }
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        for name, text in headers.items():
            path = Path(folder) / "include" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("#pragma once\n" + text)
        command, components = parse([compiler, "-std=c++20", f"-I{folder}/include", "--component", "gpu", "-DDEVICE=1", "--without", "absent"])
        found = {
            name: well for name, well, _ in check(Path(folder) / "include", Path(folder) / "work", command, components, 2)
        }
        closure = closures({name: "#pragma once\n" + text for name, text in headers.items()})
        assert precompiled(list(headers)[:5], closure)["x/user.hpp"] == "x/views.hpp"
    wrong = {"x/forgets.hpp", "x/forgets_all.hpp", "x/maybe.hpp", "x/harmed.hpp"}
    assert found == {name: name not in wrong for name in headers if name != "x/absent.hpp"}, found


def main(arguments):
    if arguments[0] == "--self-test":
        Path(arguments[1]).mkdir(parents=True, exist_ok=True)
        self_test(arguments[1], arguments[2])
        return
    command, components = parse(arguments[2:])
    count = failed = 0
    for name, well, output in check(Path(arguments[0]), Path(arguments[1]), command, components, 2):
        count += 1
        failed += not well
        if output or not well:
            print(f"{name}:\n{output}")
    print(f"{count} headers, {failed} failed")
    sys.exit(failed != 0)


if __name__ == "__main__":
    main(sys.argv[1:])
