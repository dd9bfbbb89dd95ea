#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""No policy without laws: every name in the rows of README's table that have laws, and a name from every header behind
them, must stand in a tests/FOLDER/laws*.cpp, where the laws of hmoe/testing/ run on all that is shipped. project.readme
sees to it that the table is complete.
usage: laws.py SOURCE_DIR, or laws.py --self-test
"""
import re
import tempfile
from pathlib import Path

from readme import PARTS, definitions, main, plant, policy_headers, table_rows

SEAMS = {
    "routing": ("scores", "selections", "weightings", "shared experts", "routers by name"),
    "experts": ("experts", "widths"),
    "dispatch": ("dispatch",),
    "losses": ("losses",),
    "training": ("training",),
    "execution": ("executors",),
}
# Policies that are parts of others: the names that README's table has of these headers must stand in a laws*.cpp that
# calls this law.
LAWS = {
    "experts/activation": "check_activation",
    "experts/widths": "check_widths",
    "dispatch/capacity": "check_capacity",
    "dispatch/drop_order": "check_drop_order",
}
# What goes with policies and has no laws of its own: names, and headers that define no policy.
WITHOUT = {
    "routing": {"update_bias_by_sign", "update_bias_in_proportion", "top_p_controller", "presets"},
    "experts": set(),
    "dispatch": set(),
    "losses": {"objective"},
    "training": {"clip_gradient_norm", "warmup_cosine", "warmup_constant"},
    "execution": {"context", "backend", "workspace", "for_each_row"},
}
OTHER_HEADERS = {"presets"}


def law_files(root, folder):
    """The text of each file of a folder's laws, without comments and includes."""
    for path in sorted((root / "tests" / folder).glob("laws*.cpp")):
        yield re.sub(r"//.*|#include.*", "", path.read_text())


def words_of(text):
    return set(re.findall(r"\w+", text))


def problems(root):
    rows = table_rows((root / "README.md").read_text())
    for folder, seams in SEAMS.items():
        words = words_of("\n".join(law_files(root, folder)))
        for seam in seams:
            for name in sorted(rows.get(seam, set()) - words - WITHOUT[folder]):
                yield f"the laws do not run on {name}: name it in tests/{folder}/laws*.cpp"
        for header in policy_headers(root, folder):
            defined = definitions(header)
            part = header.stem in PARTS.get(folder, ()) or defined & WITHOUT[folder]
            if not part and header.stem not in OTHER_HEADERS and not defined & words:
                yield f"the laws run on nothing of {header.relative_to(root / 'include/hmoe')}"
    names = set().union(*rows.values())
    for header, law in LAWS.items():
        path = root / "include/hmoe" / f"{header}.hpp"
        if not path.is_file():
            continue
        words = set().union(*(words_of(text) for text in law_files(root, path.parent.name) if law in words_of(text)))
        for name in sorted(definitions(path) & names - words):
            yield f"{law} does not run on {name}: name it in a tests/{path.parent.name}/laws*.cpp that calls {law}"


def self_test():
    table = "| seam | shipped |\n|---|---|\n| selections | `routing::top_k`, `top_p` |\n| training | `sgd` |\n| dispatch | `by_half` |\n\n"
    good = "// top_q\ncheck(routing::top_k<2>{}); check(top_p{}); check(other{});\n"
    faults = {
        "do not run on top_p": good.replace("top_p", "top"),
        "do not run on top_k": good.replace("check(routing::top_k<2>{});", "// top_k"),
        "nothing of routing/other.hpp": good.replace("other", "another"),
    }
    part = "check_capacity(by_half{});\n"
    part_faults = {
        "do not run on by_half": part.replace("by_half", "by_third"),
        "check_capacity does not run on by_half": part.replace("check_capacity", "check_dispatch"),
    }
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "include/hmoe/routing").mkdir(parents=True)
        (root / "tests/routing").mkdir(parents=True)
        (root / "README.md").write_text(table)
        (root / "include/hmoe/routing/top.hpp").write_text("struct top_k {};\nstruct top_p {};\n")
        (root / "include/hmoe/routing/other.hpp").write_text("struct other {};\n")
        for part_folder in ("include/hmoe/dispatch", "tests/dispatch", "tests/training"):
            (root / part_folder).mkdir(parents=True)
        (root / "include/hmoe/dispatch/capacity.hpp").write_text("struct by_half {};\n")
        (root / "tests/training/laws.cpp").write_text("check(sgd{});\n")
        (root / "tests/dispatch/laws.cpp").write_text(part)
        plant(root / "tests/routing/laws_of_all.cpp", good, faults, lambda: problems(root))
        (root / "tests/routing/laws_of_all.cpp").write_text(good)
        plant(root / "tests/dispatch/laws.cpp", part, part_faults, lambda: problems(root))


if __name__ == "__main__":
    main(problems, self_test)
