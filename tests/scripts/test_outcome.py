# SPDX-License-Identifier: MIT
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from paths import SCRIPTS

OUTCOME = SCRIPTS / "lib" / "outcome.py"

# What CMake writes for Ninja, in little: two programs share an object that is made from `shared`.
BUILD = """
rule CXX_COMPILER__x
  command = cp $in $out
rule CXX_EXECUTABLE_LINKER__x
  command = cat $in > $out
rule CUSTOM_COMMAND
  command = cp $in $out
build shared.o: CXX_COMPILER__x shared
build one.o: CXX_COMPILER__x one
build two.o: CXX_COMPILER__x two
build bin/test_one: CXX_EXECUTABLE_LINKER__x one.o shared.o
build bin/test_two: CXX_EXECUTABLE_LINKER__x two.o shared.o
build table: CUSTOM_COMMAND numbers
"""

REPORT = """<?xml version="1.0" encoding="UTF-8"?>
<testsuite tests="5" failures="1" disabled="0" skipped="3">
<testcase name="good" status="run"><system-out>fine</system-out></testcase>
<testcase name="bad" status="fail"><failure message=""/><system-out>wrong</system-out></testcase>
<testcase name="gpu" status="notrun"><skipped message="SKIP_REGULAR_EXPRESSION_MATCHED"/><system-out>Skipped: no GPU
</system-out></testcase>
<testcase name="figures" status="notrun"><skipped message="SKIP_RETURN_CODE=77"/></testcase>
<testcase name="unbuilt" status="notrun"><skipped message="Unable to find executable"/></testcase>
</testsuite>
"""


def outcome(*arguments):
    command = [sys.executable, "-B", OUTCOME, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)


class Unbuilt(unittest.TestCase):
    """The programs that a failed build could not make."""

    def build(self, missing):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            (root / "build.ninja").write_text(BUILD)
            for name in {"shared", "one", "two", "numbers"} - set(missing):
                (root / name).write_text(name)
            (root / "bin").mkdir()
            for name in ("test_one", "test_two"):
                (root / "bin" / name).write_text("made by an earlier build")
            for name in missing:  # as a source with a mistake: the command fails
                (root / name).mkdir()
            build = subprocess.run(["ninja", "-k", "0"], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            (root / "build.log").write_bytes(build.stdout)
            names = outcome("unbuilt", folder, str(root / "build.log")).stdout.split()
            return names, sorted(path.name for path in (root / "bin").iterdir())

    def test_a_complete_build_names_none(self):
        self.assertEqual(self.build([]), ([], ["test_one", "test_two"]))

    def test_one_program_fails_and_the_other_stays(self):
        self.assertEqual(self.build(["one"]), (["bin/test_one"], ["test_two"]))

    def test_a_shared_part_fails_all_that_are_made_of_it(self):
        self.assertEqual(self.build(["shared"]), (["bin/test_one", "bin/test_two"], []))

    def test_what_belongs_to_no_program_is_named_itself(self):
        self.assertEqual(self.build(["numbers", "two"]), (["bin/test_two", "table"], ["test_one"]))


class Counts(unittest.TestCase):
    def test_a_test_without_its_program_is_neither_skipped_nor_failed(self):
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder, "tests.xml")
            report.write_text(REPORT)
            done = outcome("tests", str(report))
        self.assertEqual(done.stdout, "1 1 2\n")
        self.assertEqual(done.stderr, "skipped: gpu: Skipped: no GPU\nskipped: figures: no reason is given\n")


if __name__ == "__main__":
    unittest.main()
