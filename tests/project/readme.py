#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Holds README.md and docs/ against the code.

A code block under a comment <!-- FILE --> must stand in FILE, which the tests compile and run (doc_blocks.py compiles the
others). The table of features
must name policies that exist, and at least one from every header of the policy folders. Links must lead somewhere.
usage: readme.py SOURCE_DIR, or readme.py --self-test
"""
import re
import sys
import tempfile
from pathlib import Path

POLICY_FOLDERS = ("backends", "dispatch", "experts", "losses", "routing", "statistics", "training")
# What policies are made of, and what users do not name.
PARTS = {
    "backends": {"cuda"},  # an umbrella
    "dispatch": {
        "build_plan", "cost_model", "dispatcher", "explanation", "limited", "limited_plan", "measure_machine", "permuted", "rows",
        "strategy", "tune", "tuned_table",
    },  # fmt: skip
    "experts": {"bank", "diagnosis", "elementwise", "ffn_weights", "gating", "run", "run_backward", "zero_cost_bank"},
    "losses": {
        "auxiliary_loss", "choice_counts", "expert_groups", "gates", "load_variation", "small_memory", "squared_variation",
    },  # fmt: skip
    "routing": {
        "accepted_batch", "batch_selection", "bias_load", "noise", "non_finite", "padding", "preference", "projection",
        "router_policy", "score", "score_function", "selection", "token_ids", "weighting",
    },  # fmt: skip
    "statistics": {"number_list"},
}


def snippets(text):
    """(file, code) of each marked block."""
    return re.findall(r"<!-- (\S+) -->\n```cpp\n(.*?)```", text, re.DOTALL)


def table_rows(text):
    """The names in backticks in each row of the table of features, without namespaces and template arguments."""
    table = re.search(r"^\| seam \|.*?(?=\n\n)", text, re.DOTALL | re.MULTILINE)
    return {
        line.split("|")[1].strip(): {
            re.sub(r"<.*", "", name).split("::")[-1] for name in re.findall(r"`([^`]+)`", line)
        }
        for line in (table.group().splitlines() if table else [])
    }


def table_names(text):
    return set().union(*table_rows(text).values())


def policy_headers(root, folder):
    """The headers of a policy folder; those of routing/ are in folders of their own."""
    headers = root / "include/hmoe" / folder
    return sorted(headers.rglob("*.hpp") if folder == "routing" else headers.glob("*.hpp"))


def definitions(header):
    """Names that a header defines at namespace scope."""
    text = re.sub(r"//.*", "", header.read_text())
    found = re.findall(r"^\s*(?:template\s*<.*>\s*)?(?:class|struct|using|concept|enum class)\s+(\w+)", text, re.MULTILINE)
    return set(found) | set(re.findall(r"(\w+)\s*\([^;{}]*\)[^;{}]*\{", text))


def problems(root):
    for page in [root / "README.md", *sorted((root / "docs").rglob("*.md"))]:
        shown = page.stem if page.parent == root else page.relative_to(root)
        for name, code in snippets(page.read_text()):
            path = root / name
            if not path.is_file():
                yield f"{shown} shows code of {name}, which does not exist"
            elif code.strip() not in path.read_text():
                yield f"the code that {shown} shows of {name} does not stand there"
    text = (root / "README.md").read_text()
    if not snippets(text):
        yield "README shows no code of the examples"

    names = table_names(text)
    if not names:
        yield "README has no table of features (its first column is called seam)"
    known = set()
    for folder in POLICY_FOLDERS:
        for header in policy_headers(root, folder):
            defined = definitions(header)
            known |= defined
            if header.stem not in PARTS.get(folder, ()) and not defined & names:
                yield f"README's table names nothing of {header.relative_to(root / 'include/hmoe')}"
    for other in (root / "include/hmoe").rglob("*.hpp"):
        known |= definitions(other)
    for name in sorted(names - known):
        yield f"README's table names {name}, which no header defines"

    for page in [root / "README.md", root / "CONTRIBUTING.md", *sorted((root / "docs").rglob("*.md"))]:
        if not page.is_file():
            continue
        prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", prose):
            if "://" not in link and not (page.parent / link).exists():
                yield f"{page.relative_to(root)} links to {link}, which does not exist"


def self_test():
    good = "<!-- a.cpp -->\n```cpp\n[](int x);\n```\n\n| seam | shipped |\n|---|---|\n| routing | `routing::top_k<2>` |\n\n[p](a.cpp)\n"
    faults = {
        "does not stand there": good.replace("int x", "int y"),
        "shows code of b.cpp": good.replace("<!-- a.cpp", "<!-- b.cpp"),
        "names top_q": good.replace("top_k", "top_k`, `top_q"),
        "nothing of routing/top_k.hpp": good.replace("top_k", "other"),
        "links to c.cpp": good.replace("(a.cpp)", "(c.cpp)"),
        "no table": good.replace("seam", "place"),
    }
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "include/hmoe/routing").mkdir(parents=True)
        (root / "include/hmoe/routing/top_k.hpp").write_text("template <int K> class top_k {};\nstruct other_one {};\n")
        (root / "a.cpp").write_text("[](int x);\n")
        plant(root / "README.md", good, faults, lambda: problems(root))


def plant(file, good, faults, problems):
    """Each faulty text in place of the good one must give a problem with the words that it stands under."""
    for expected, text in {"": good, **faults}.items():
        file.write_text(text)
        found = list(problems())
        if bool(found) != bool(expected) or not any(expected in line for line in found or [""]):
            sys.exit(f"self-test: expected '{expected}', found {found}")


def main(problems, self_test):
    if sys.argv[1:] == ["--self-test"]:
        self_test()
    else:
        lines = list(problems(Path(sys.argv[1])))
        print("\n".join(lines))
        sys.exit(bool(lines))


if __name__ == "__main__":
    main(problems, self_test)
