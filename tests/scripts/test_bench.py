# SPDX-License-Identifier: MIT
import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from paths import ROOT, SCRIPTS

from measurements import results

sys.path.insert(0, str(ROOT / "benchmarks" / "compile_time"))
import measure  # noqa: E402


def bench(*arguments):
    return subprocess.run([SCRIPTS / "bench", *arguments], capture_output=True, text=True, timeout=60)


class Options(unittest.TestCase):
    """What the script does before it installs or builds anything."""

    def test_help(self):
        done = bench("--help")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        for option in ("--quick", "--filter", "--pytorch"):
            self.assertIn(option, done.stdout)

    def test_peers_have_a_command_of_their_own_in_two_spellings(self):
        for word in ("peers", "--peers"):
            done = bench(word, "--help")
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertIn("usage: scripts/bench peers", done.stdout)
            done = bench(word, "--fast")
            self.assertEqual(done.returncode, 2)
            self.assertIn("unknown argument: --fast", done.stderr)

    def test_wrong_options_stop_it_with_a_reason(self):
        for arguments, words in (
            (["--fast"], "unknown argument: --fast"),
            (["--filter"], "--filter needs a value"),
            (["--filter", ""], "--filter needs a value"),
            (["--filter", "layer/("], "--filter needs a regular expression, not 'layer/('"),
        ):
            done = bench(*arguments)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(words, done.stderr)
            self.assertNotIn("[1/6]", done.stdout)


def cell(subject, tokens, milliseconds, shape="hmoe_0.4b", aggregate="median", **counters):
    return {
        "run_name": f"layer/{shape}/f32/{subject}/tokens:{tokens}/threads:1/uniform", "name": "…",
        "run_type": "aggregate", "aggregate_name": aggregate, "real_time": milliseconds, "time_unit": "ms", **counters,
    }  # fmt: skip


def program(*entries):
    return {"context": {"compiler": "g++ 12", "version.padded": "one"}, "benchmarks": list(entries)}


def gathered(*contents):
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for index, content in enumerate(contents):
            files.append(Path(folder, f"{index}.json"))
            files[-1].write_text(content if isinstance(content, str) else json.dumps(content))
        return results.gather(files, "scripts/bench", [("CPU", "one")])


class CompileTimes(unittest.TestCase):
    def test_ninjas_log_by_program_with_the_last_compilation_of_each_object(self):
        log = "# ninja log v5\n" + "".join(
            f"{start}\t{end}\t0\t{output}\tabc\n"
            for start, end, output in (
                (0, 9000, "tests/CMakeFiles/test_a.dir/a/x.cpp.o"),
                (0, 500, "tests/CMakeFiles/test_b.dir/b.cpp.o"),
                (100, 1600, "tests/CMakeFiles/test_a.dir/a/x.cpp.o"),
                (1000, 2000, "tests/CMakeFiles/test_a.dir/a/y.cpp.o"),
                (2000, 2100, "tests/test_a"),
            )
        )
        self.assertEqual(
            measure.programs_of(log),
            [{"name": "test_a", "units": 2, "seconds": 2.5, "longest": 1.5},
             {"name": "test_b", "units": 1, "seconds": 0.5, "longest": 0.5}],
        )  # fmt: skip


class Gathering(unittest.TestCase):
    def test_medians_with_their_spread_and_counters(self):
        found = gathered(
            program(
                cell("simd", 4, 3.0, aggregate="mean"),
                cell("simd", 4, 2.0, efficiency=0.5, **{"GFLOP/s": 10}),
                cell("simd", 4, 0.1, aggregate="cv"),
            )
        )
        self.assertEqual(len(found["layer"]), 1)
        entry = found["layer"][0]
        self.assertEqual(
            {key: entry[key] for key in ("shape", "dtype", "subject", "tokens", "threads", "routing")},
            {"shape": "hmoe_0.4b", "dtype": "f32", "subject": "simd", "tokens": 4, "threads": 1, "routing": "uniform"},
        )
        self.assertEqual(
            (entry["milliseconds"], entry["spread"], entry["efficiency"], entry["gflops"]), (2.0, 0.1, 0.5, 10)
        )
        self.assertEqual((found["versions"], found["machine"]), ({"padded": "one"}, {"CPU": "one", "compiler": "g++ 12"}))

    def test_what_was_skipped_is_kept_with_its_reason(self):
        failed = {"name": "layer/wide/f32/simd", "error_occurred": True, "error_message": "needs 12 GB"}
        found = gathered(program(failed, failed))
        self.assertEqual(found["skipped"], [{"name": "layer/wide/f32/simd", "reason": "needs 12 GB"}])
        self.assertEqual(found["layer"], [])

    def test_training_and_compile_times(self):
        step = {"name": "training/olmoe/f32/simd/tokens:256/threads:2/step", "real_time": 5e6, "time_unit": "ns"}
        found = gathered(program(step), {"command": "g++", "units": []})
        self.assertEqual((found["training"][0]["phase"], found["training"][0]["milliseconds"]), ("step", 5))
        self.assertEqual(found["compile_time"], {"command": "g++", "units": []})

    def test_a_damaged_file_is_an_error_that_names_it(self):
        for content in ("{", "{}"):
            with self.assertRaisesRegex(results.ResultsError, r"0\.json is not what a benchmark program writes"):
                gathered(content)

    def test_ratios_need_both_sides(self):
        self.assertEqual(results.ratios({1: 4, 4: 6, 16: 1}, {1: 2, 4: 3}), {1: 2, 4: 2})


if __name__ == "__main__":
    unittest.main()
