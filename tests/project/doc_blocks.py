#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Compiles the C++ code blocks of README.md and docs/ as they are written.

A block under a comment <!-- FILE --> stands in FILE (readme.py looks), which is compiled as such. Every other block is
compiled here. Definitions (struct, template, using, …) go to a namespace of the block's own, statements into a function,
behind the variables that the page speaks of without declaring them: doc_blocks/PAGE.inc has those of a page. Blocks that
include CUDA's headers need them (--cuda FLAGS). A block with main() is a program that takes nothing but the include path.
usage: doc_blocks.py SOURCE_DIR COMPILER FLAGS... [--cuda FLAGS...], or doc_blocks.py --self-test
"""
import re
import subprocess
import sys
import tempfile
from pathlib import Path

DEFINITION = re.compile(r"(struct|class|enum|template|using|namespace|inline|constexpr\s+\w+\s*\(|HMOE_\w+\()")
HEADERS = (
    "hmoe/hmoe.hpp", "hmoe/compress.hpp", "hmoe/backends/eigen.hpp", "hmoe/backends/simd.hpp", "hmoe/execution/openmp.hpp",
    "algorithm", "cstdint", "memory", "span", "utility", "vector",
)  # fmt: skip


def blocks(text):
    """(line number, file or None, code) of each C++ block."""
    for found in re.finditer(r"(?:<!-- (\S+) -->\n)?```cpp\n(.*?)```", text, re.DOTALL):
        yield text.count("\n", 0, found.start(2)) + 1, found.group(1), found.group(2)


def chunks(code):
    """(line offset, text) of each top-level definition, statement or directive."""
    # Comments, strings and characters as blanks, so that what stands in them does not count.
    blank = re.sub(r'//[^\n]*|"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'', lambda m: " " * len(m.group()), code)
    begin, depth, at = 0, 0, 0
    while at < len(blank):
        if depth == 0 and blank[at] == "#" and not blank[begin:at].strip():
            at = end = blank.find("\n", at)
        else:
            depth += {"{": 1, "(": 1, "}": -1, ")": -1}.get(blank[at], 0)
            closes = blank[at] == "}" and not re.match(r"\s*[;,.)(]", blank[at + 1 :])
            end = at if depth == 0 and (blank[at] == ";" or closes) else -1
        if end >= 0:
            yield code.count("\n", 0, begin), code[begin : end + 1]
            begin = end + 1
        at += 1
    if code[begin:].strip():
        yield code.count("\n", 0, begin), code[begin:]


def without_comments(text):
    return re.sub(r"//[^\n]*", "", text).strip()


def translated(page, line, code, number, variables):
    """The block as a part of a translation unit; messages of the compiler name the line of the page."""
    directives, definitions, statements = [], [], []
    for offset, text in chunks(code):
        words = without_comments(text)
        kind = directives if words.startswith("#") else definitions if DEFINITION.match(words) else statements
        if kind is directives and not re.match(r"#include\s*<", words):
            raise SystemExit(f"{page}:{line + offset}: only #include <…> can stand in a block: {words}")
        kind.append(f'#line {line + offset} "{page}"\n{text.rstrip()}')
    body = [f"namespace block_{number} {{", "using namespace hmoe;", *definitions]
    if any(without_comments(re.sub(r"#line[^\n]*", "", text)) for text in statements):
        body += ["[[maybe_unused]] inline void run() {", variables, "{", *statements, "}", "}"]
    return directives, [*body, "}"]


def compile_text(text, compiler, flags):
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "blocks.cpp"
        source.write_text(text)
        command = [*compiler, "-std=c++20", "-fopenmp", "-fsyntax-only", "-w", *flags, str(source)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return "" if done.returncode == 0 else done.stderr


def pages(root):
    return [root / "README.md", *sorted((root / "docs").rglob("*.md"))]


def problems(root, compiler, flags, cuda):
    laws = sorted(f"hmoe/testing/{path.name}" for path in (root / "include/hmoe/testing").glob("*_laws.hpp"))
    includes, parts = [f"#include <{header}>" for header in (*HEADERS, *laws)], []
    for page in pages(root):
        name = str(page.relative_to(root))
        prelude = root / "tests/project/doc_blocks" / (page.stem + ".inc")
        variables = f'#line 1 "{prelude.name}"\n{prelude.read_text()}' if prelude.is_file() else ""
        for number, (line, file, code) in enumerate(blocks(page.read_text())):
            if re.search(r"^int main\(", code, re.MULTILINE):
                # As a user without CMake compiles it: no macro of ours is defined.
                plain = [flag for flag in flags if not flag.startswith("-D")]
                yield from [compile_text(f'#line {line} "{name}"\n{code}', compiler, plain)]
            elif file is None and ("cuda" not in code or cuda):
                wanted, part = translated(name, line, code, f"{page.stem}_{number}", variables)
                includes += wanted
                parts += part
    yield compile_text("\n".join(includes + parts) + "\n", compiler, [*flags, *(cuda or [])])


def self_test(compiler):
    code = 'struct a { int b; };\n// a comment; with {\na c{1}; for (;;) { "}"; }\nif (c.b) c.b = 2;\n#include <x>\nusing d = a;'
    found = [without_comments(text) for _, text in chunks(code)]
    assert found == [
        "struct a { int b; };", "a c{1};", 'for (;;) { "}"; }', "if (c.b) c.b = 2;", "#include <x>", "using d = a;",
    ], found  # fmt: skip
    good = "struct a { template <class T> T twice(T x) { return 2 * x; } };\n// text\nint y = a{}.twice(x);\n"
    for text, words in ((good, ""), (good.replace("twice(x)", "thrice(x)"), "page.md:12:")):
        _, parts = translated("page.md", 10, text, 0, "int x = 1;")
        message = compile_text("namespace hmoe {}\n" + "\n".join(parts), compiler, [])
        if bool(message) != bool(words) or words not in message:
            sys.exit(f"self-test: expected '{words}', found '{message}'")


def main(arguments):
    if arguments[0] == "--self-test":
        self_test(arguments[1:])
        return
    root, compiler, flags = Path(arguments[0]), arguments[1:2], arguments[2:]
    cuda = None
    if "--cuda" in flags:
        cut = flags.index("--cuda")
        flags, cuda = flags[:cut], flags[cut + 1 :]
    found = [problem for problem in problems(root, compiler, flags, cuda) if problem]
    print("\n".join(found))
    sys.exit(bool(found))


if __name__ == "__main__":
    main(sys.argv[1:])
