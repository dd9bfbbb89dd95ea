# SPDX-License-Identifier: MIT
import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import needs_matplotlib  # noqa: F401
from paths import SCRIPTS

from report import plotting, pruning, pruning_figure

PROGRAM = SCRIPTS / "pruning_report.py"
EVIL = "<script>alert('x')</script>&\"'"


def made_up(model="homogeneous"):
    lines = []
    for seed in (1, 2):
        lines.append(line(model, seed, "nothing", 1.0, 2.2))
        for budget in (0.5, 0.25):
            for place, cut in enumerate(("uniform", "unequal", "drop", "constants")):
                lines.append(line(model, seed, cut, budget, 2.2 + 0.1 * place + 0.2 * (1 - budget)))
    return {
        "format": "hmoe-pruning-1",
        "machine": {"cpu": "a processor", "threads": 1},
        "command": "language_model prune --model m",
        "calibration_tokens": 65536,
        "anneal": {"tokens": 262144, "learning_rate": 0.001},
        "interrupted": False,
        "lines": lines,
    }


def line(model, seed, cut, budget, bits):
    return {
        "model": model,
        "seed": seed,
        "cut": cut,
        "budget": budget,
        "expert_bytes": 1572864 * budget,
        "expert_flops_per_token": 196608 * budget,
        "flops_per_token": 360000.0,
        "bits_per_byte_before": bits + 0.5,
        "bits_per_byte": bits + 0.01 * (seed - 1),
        "tokens_per_second": 100000.0,
    }


def report(results, *arguments):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pruning.json"
        path.write_text(results if isinstance(results, str) else json.dumps(results), encoding="utf-8")
        page = Path(folder) / "page.html"
        done = subprocess.run(
            [sys.executable, "-B", PROGRAM, path, *(arguments or ("-o", page))], capture_output=True, text=True, timeout=120
        )
        return done, page.read_text(encoding="utf-8") if page.exists() else ""


class Report(unittest.TestCase):
    def test_the_table_has_means_over_seeds_and_half_their_range(self):
        done, _ = report(made_up(), "--markdown")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        rows = [row for row in done.stdout.splitlines() if row.startswith("| ")]
        self.assertEqual(len(rows), 1 + 1 + 9)  # head, rule, lines
        self.assertIn("| unequal width cut | 50 % | 2 | 2.900 ± 0.000 | 2.405 ± 0.005 | 98.3 k | 786 k | 100,000 |", rows)
        self.assertIn("on a processor with 1 thread; seeds 1, 2; importance from 65,536 training tokens", done.stdout)

    def test_the_page_holds_both_plots_and_escapes_names(self):
        both = made_up()
        both["lines"] += made_up(EVIL)["lines"]
        done, page = report(both)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(page.count("<svg xmlns") + page.count("<svg viewBox"), page.count('role="img"'))
        self.assertEqual(page.count('role="img"'), 2)
        self.assertNotIn("<script", page)
        for words in ("uniform width cut", "experts → constants", "bits per byte", "whole model"):
            self.assertIn(words, page)

    def test_lines_are_drawn_where_the_numbers_are(self):
        drawing, axes = plotting.new()
        keys = pruning_figure.draw(axes, made_up(), "expert_bytes", 1e3, "bytes")
        self.assertEqual(len(keys), 5)
        means = [drawn.get_xydata() for drawn in axes.get_lines() if drawn.get_linewidth() > 1]
        self.assertEqual(len(means), 4)
        x, y = means[1][1]  # unequal at 50 %, behind that at 25 %
        self.assertAlmostEqual(x, 786.432)
        self.assertAlmostEqual(y, 2.405)
        plotting.close(drawing)

    def test_files_that_are_something_else_end_with_a_reason(self):
        for text, words in (
            ("{", "is not JSON"),
            ('{"format": "hmoe-results-1"}', "is not what `language_model prune` writes"),
            (json.dumps({**made_up(), "lines": []}), "expected at least 1 entries"),
            (json.dumps({**made_up(), "lines": [{"model": "m"}]}), 'the field "cut" is missing'),
        ):
            done, _ = report(text)
            self.assertEqual(done.returncode, 1)
            self.assertIn(words, done.stderr)


if __name__ == "__main__":
    unittest.main()
