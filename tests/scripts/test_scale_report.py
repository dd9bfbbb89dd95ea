# SPDX-License-Identifier: MIT
import json
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from paths import SCRIPTS


def entry(platform, ranks, placement, chunks, seconds, what="forward"):
    return json.dumps({"what": what, "platform": platform, "ranks": ranks, "placement": placement, "chunks": chunks,
                       "seconds": seconds})


class ScaleReport(unittest.TestCase):
    def report(self, text):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "numbers").write_text(text)
            done = subprocess.run(
                [sys.executable, SCRIPTS / "scale_report.py", folder / "numbers", "--table", folder / "table", "--plot",
                 folder / "plot"], capture_output=True, text=True, timeout=60)
            written = [(folder / f).read_text() if (folder / f).exists() else None for f in ("table", "plot")]
            return done, *written

    def test_table_and_plot_say_that_they_are_simulated(self):
        done, table, plot = self.report("\n".join(
            entry(platform, ranks, placement, chunks, seconds * ranks)
            for platform in ("ethernet", "gpus") for ranks in (1024, 8)
            for placement, chunks, seconds in (("round_robin", 1, 0.004), ("replicas", 1, 0.001), ("replicas", 3, 0.0005))))
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertTrue(table.startswith("Simulated, not measured"))
        rows = [line for line in table.splitlines() if line.startswith("| nodes of 8 GPUs")]
        self.assertEqual(rows, ["| nodes of 8 GPUs | 8 | 32 |  | 8 | 4 |", "| nodes of 8 GPUs | 1,024 | 4,096 |  | 1,024 | 512 |"])
        self.assertEqual(len(ElementTree.fromstring(plot).findall("{*}polyline")), 8)
        self.assertIn("simulated", plot)

    def test_training_steps_have_a_table_and_panels_of_their_own(self):
        done, table, plot = self.report("\n".join(
            entry(platform, ranks, "by_cost", 1, factor * ranks * 1e-4, what) for what, factor in (("forward", 1), ("step", 3))
            for platform in ("ethernet", "gpus") for ranks in (8, 64)))
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        forward, step = table.split("Simulated, not measured: ")[1:]
        self.assertTrue(forward.startswith("milliseconds of the forward pass"))
        self.assertTrue(step.startswith("milliseconds of the training step"))
        self.assertIn("| nodes of 8 GPUs | 64 |  | 6.4 |  |  |", forward)
        self.assertIn("| nodes of 8 GPUs | 64 |  | 19.2 |  |  |", step)
        self.assertEqual(plot.count("simulated: ms of a forward pass"), 2)
        self.assertEqual(plot.count("simulated: ms of a training step"), 2)
        self.assertEqual(len(ElementTree.fromstring(plot).findall("{*}circle")), 8)

    def test_one_number_of_ranks(self):
        done, _, plot = self.report(entry("gpus", 8, "replicas", 3, 0.5))
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(len(ElementTree.fromstring(plot).findall("{*}circle")), 1)

    def test_what_is_no_result(self):
        for text, words in (("", "has no results"), ("x\n", "line 1 is no result"), ('{"ranks": 8}\n', "'what'")):
            done, table, _ = self.report(text)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(words, done.stderr)
            self.assertIsNone(table)


class Options(unittest.TestCase):
    def test_wrong_options_stop_it_with_a_reason(self):
        for arguments, words in ((["--ranks", "12"], "a multiple of 8 up to 4096, not '12'"), (["--ranks"], "not ''"),
                                 (["--fast"], "unknown argument: --fast")):
            done = subprocess.run([SCRIPTS / "scale", *arguments], capture_output=True, text=True, timeout=60)
            self.assertEqual(done.returncode, 2)
            self.assertIn(words, done.stderr)


if __name__ == "__main__":
    unittest.main()
