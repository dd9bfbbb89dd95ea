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
    "experts": ("experts",),
    "dispatch": ("dispatch",),
    "losses": ("losses",),
}
# What goes with policies and has no laws of its own: names, and headers that define no policy.
WITHOUT = {
    "routing": {"update_bias_by_sign", "update_bias_in_proportion", "top_p_controller", "presets"},
    "experts": set(),
    "dispatch": set(),
    "losses": {"objective"},
}
OTHER_HEADERS = {"presets", "widths"}


def problems(root):
    rows = table_rows((root / "README.md").read_text())
    for folder, seams in SEAMS.items():
        tests = "\n".join(re.sub(r"//.*|#include.*", "", p.read_text()) for p in (root / "tests" / folder).glob("laws*.cpp"))
        words = set(re.findall(r"\w+", tests))
        for seam in seams:
            for name in sorted(rows.get(seam, set()) - words - WITHOUT[folder]):
                yield f"the laws do not run on {name}: name it in tests/{folder}/laws*.cpp"
        for header in policy_headers(root, folder):
            defined = definitions(header)
            part = header.stem in PARTS.get(folder, ()) or defined & WITHOUT[folder]
            if not part and header.stem not in OTHER_HEADERS and not defined & words:
                yield f"the laws run on nothing of {header.relative_to(root / 'include/hmoe')}"


def self_test():
    table = "| seam | shipped |\n|---|---|\n| selections | `routing::top_k`, `top_p` |\n| training | `sgd` |\n\n"
    good = "// top_q\ncheck(routing::top_k<2>{}); check(top_p{}); check(other{});\n"
    faults = {
        "do not run on top_p": good.replace("top_p", "top"),
        "do not run on top_k": good.replace("check(routing::top_k<2>{});", "// top_k"),
        "nothing of routing/other.hpp": good.replace("other", "another"),
    }
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "include/hmoe/routing").mkdir(parents=True)
        (root / "tests/routing").mkdir(parents=True)
        (root / "README.md").write_text(table)
        (root / "include/hmoe/routing/top.hpp").write_text("struct top_k {};\nstruct top_p {};\n")
        (root / "include/hmoe/routing/other.hpp").write_text("struct other {};\n")
        plant(root / "tests/routing/laws_of_all.cpp", good, faults, lambda: problems(root))


if __name__ == "__main__":
    main(problems, self_test)
