# SPDX-License-Identifier: MIT
import json
import re
import subprocess
import sys
import tempfile
import unittest
from html.parser import HTMLParser
from pathlib import Path

import needs_matplotlib  # noqa: F401
import synthetic
from paths import SCRIPTS

import report.page
from report import figures, plotting, series

# The package of the same name is imported above; the program is run as a program.
PROGRAM = SCRIPTS / "report.py"
EVIL = "<script>alert('x')</script>&\"'"


class Collector(HTMLParser):
    """Tags, identifiers and references of a page; complains about tags that do not nest."""

    VOID = {"meta", "br", "link", "img", "path", "use", "circle"}

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.references, self.open = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            if name in ("href", "src", "xlink:href", "action", "data"):
                self.references.append(value)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            if not self.open or self.open[-1] != tag:
                raise AssertionError(f"</{tag}> closes {self.open[-3:]}")
            self.open.pop()


class Page(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.text = report.page.html(synthetic.demo())
        cls.page = Collector(cls.text)

    def test_every_section_is_there(self):
        for name in (
            "variants",
            "paper",
            "loss",
            "width",
            "share",
            "difficulty",
            "distance",
            "synergy",
            "tokens",
            "samples",
            "setup",
        ):
            self.assertIn(name, self.page.ids)

    def test_nothing_is_loaded_from_elsewhere(self):
        for reference in self.page.references:
            self.assertTrue(reference.startswith(("#", "data:image/png;")), reference[:60])
        self.assertFalse({"script", "link", "img", "iframe"} & set(self.page.tags))
        self.assertNotRegex(self.text, r"url\((?!#)|@import")

    def test_identifiers_are_unique_and_references_lead_somewhere(self):
        self.assertEqual(len(self.page.ids), len(set(self.page.ids)))
        inside = [reference[1:] for reference in self.page.references if reference.startswith("#")]
        inside += re.findall(r"url\(#([^)]*)\)", self.text)
        self.assertEqual(set(inside) - set(self.page.ids), set())

    def test_tags_nest(self):
        self.assertEqual(self.page.open, [])

    def test_the_same_numbers_give_the_same_page(self):
        self.assertEqual(report.page.html(synthetic.demo()), self.text)

    def test_ablations_appear_with_their_variants(self):
        self.assertNotIn("ablations", self.page.ids)
        page = Collector(report.page.html(synthetic.full()))
        self.assertIn("ablations", page.ids)
        self.assertEqual(len(page.ids), len(set(page.ids)))

    def test_text_from_the_data_stays_text(self):
        results = synthetic.demo()
        results["machine"]["cpu"] = results["command"] = results["corpus"]["name"] = EVIL
        for variant in results["variants"]:
            variant["title"] = variant["router"] = EVIL
            variant["losses"].append({"name": EVIL, "coefficient": 1})
            for run in variant["runs"]:
                run["sample"] = EVIL
                run["top_tokens"][0][0][0]["token"] = EVIL
        page = Collector(report.page.html(results))
        self.assertNotIn("script", page.tags)
        self.assertEqual(page.open, [])

    def test_without_the_optional_parts(self):
        results = synthetic.demo()
        for name in ("command", "corpus", "model"):
            results.pop(name)
        for variant in results["variants"]:
            for name in ("title", "predicted_share", "predicted_activated_width", "losses", "router", "router_value"):
                variant.pop(name)
            variant["runs"] = [{"final": {"bits_per_byte": 2.2, "flops_per_token": 1e6}}]
        page = Collector(report.page.html(results))
        self.assertEqual([name for name in ("loss", "width", "share", "tokens", "samples") if name in page.ids], [])
        self.assertIn("variants", page.ids)

    def test_one_dense_variant_alone(self):
        dense = synthetic.variant("dense", "dense", [1024], None, router=("top-k", 1))
        page = Collector(report.page.html(synthetic.results([dense], 3e12)))
        self.assertIn("loss", page.ids)
        self.assertNotIn("share", page.ids)

    def test_control_characters_in_tokens_become_visible(self):
        self.assertEqual(report.page.visible(" a\n\x00"), "␣a⏎\\x00")


class Figures(unittest.TestCase):
    def test_labels_keep_apart_and_in_order(self):
        wanted = [0.5, 0.51, 0.1, 0.505, 0.9]
        placed = plotting.spread(wanted, 0.1)
        in_order = [place for _, place in sorted(zip(wanted, placed))]
        for low, high in zip(in_order, in_order[1:]):
            self.assertGreaterEqual(high - low, 0.1 - 1e-12)
        self.assertAlmostEqual(placed[4], 0.9)
        self.assertAlmostEqual(sum(placed[i] for i in (0, 1, 3)) / 3, 0.505)

    def test_wide_experts_are_darker_and_thicker(self):
        colours, strokes = plotting.size_colours([4, 8, 16]), plotting.size_strokes([4, 8, 16])
        light = {width: sum(colours[width][:3]) for width in colours}
        self.assertTrue(light[4] > light[8] > light[16])
        self.assertTrue(strokes[4] < strokes[8] < strokes[16])

    def test_second_axis_only_where_the_numbers_lie_on_its_line(self):
        results = synthetic.demo()
        constant, slope = figures.parameter_axis(results, results["variants"])
        self.assertEqual(slope, 3 * synthetic.D_MODEL * synthetic.BLOCKS)
        self.assertAlmostEqual(constant, synthetic.BASE_PARAMETERS)
        results["variants"][0]["runs"][0]["final"]["activated_parameters"] *= 2
        self.assertIsNone(figures.parameter_axis(results, results["variants"]))

    def test_long_histories_are_thinned(self):
        x = series.np.linspace(0, 1, 5000)
        thin_x, thin_y = series.thinned(x, x)
        self.assertEqual(len(thin_x), series.MOST_POINTS)
        self.assertTrue((abs(thin_x - thin_y) < 1e-12).all())


class Program(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.results = self.folder / "results.json"
        self.results.write_text(json.dumps(synthetic.demo()))

    def run_it(self, *arguments, before="pass"):
        start = f"import runpy, sys; {before}; sys.argv = {[str(a) for a in (PROGRAM, *arguments)]!r};"
        start += f"sys.path.insert(0, {str(SCRIPTS)!r}); runpy.run_path(sys.argv[0], run_name='__main__')"
        return subprocess.run([sys.executable, "-B", "-c", start], capture_output=True, text=True)

    def test_page_and_figures(self):
        for name in ("figure.svg", "figure.png"):
            done = self.run_it(self.results, "-o", self.folder / "report.html", "--figure", self.folder / name)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertGreater((self.folder / name).stat().st_size, 10_000)
        self.assertIn("</html>", (self.folder / "report.html").read_text(encoding="utf-8"))

    def test_markdown_needs_no_matplotlib_and_the_page_says_what_is_missing(self):
        without = "sys.modules['matplotlib'] = None"
        done = self.run_it(self.results, "--markdown", before=without)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("| homogeneous", done.stdout)
        done = self.run_it(self.results, "-o", self.folder / "report.html", before=without)
        self.assertEqual(done.returncode, 1)
        self.assertIn("pip install -r scripts/requirements.txt", done.stderr)
        self.assertNotIn("Traceback", done.stderr)

    def test_errors_are_one_line(self):
        self.results.write_text('{"format": "other"}')
        done = self.run_it(self.results, "--markdown")
        self.assertEqual(done.returncode, 1)
        self.assertEqual(len(done.stderr.splitlines()), 1)
        self.assertIn("hmoe-results-1", done.stderr)
        self.assertEqual(self.run_it(self.results).returncode, 2)
        self.assertEqual(self.run_it(self.results, "--figure", "x.pdf").returncode, 2)


if __name__ == "__main__":
    unittest.main()
