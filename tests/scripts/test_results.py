# SPDX-License-Identifier: MIT
import contextlib
import json
import tempfile
import unittest
from pathlib import Path

import synthetic
from paths import SCRIPTS  # noqa: F401  (makes the next import find the package)
from report import findings, tables
from report.results import ResultsError, check, load


class Reading(unittest.TestCase):
    def refused(self, words, change):
        results = synthetic.demo()
        change(results)
        with self.assertRaisesRegex(ResultsError, words):
            check(results)

    def test_whole_files_pass(self):
        for make in (synthetic.demo, synthetic.full, synthetic.smoke):
            check(make())

    def test_another_format(self):
        self.refused("hmoe-results-2", lambda r: r.update(format="hmoe-results-2"))
        self.refused("does not name its format", lambda r: r.pop("format"))
        with self.assertRaisesRegex(ResultsError, "does not name its format"):
            check([])

    def test_the_place_of_a_fault_is_named(self):
        self.refused(r'results\.variants\[1\]: the field "widths" is missing', lambda r: r["variants"][1].pop("widths"))
        self.refused(
            r"variants\[0\]\.runs\[0\]\.final\.bits_per_byte: expected a number, found \"2.2\"",
            lambda r: r["variants"][0]["runs"][0]["final"].update(bits_per_byte="2.2"),
        )
        self.refused(r"runs: expected at least 1 entries", lambda r: r["variants"][0].update(runs=[]))
        self.refused(
            r"history\[3\]\.share_per_layer\[1\]\[0\]: expected a number, found null",
            lambda r: r["variants"][0]["runs"][0]["history"][3]["share_per_layer"][1].__setitem__(0, None),
        )

    def test_parts_that_do_not_fit_together(self):
        self.refused("7 predicted shares for 8 experts", lambda r: r["variants"][0]["predicted_share"].pop())
        self.refused("gives 9 shares", lambda r: r["variants"][0]["runs"][0]["final"]["share_per_layer"][0].append(0.1))
        self.refused("more than once", lambda r: r["variants"][1].update(name="homogeneous"))
        self.refused("not positive", lambda r: r["variants"][0]["widths"].__setitem__(0, 0))

    def test_optional_parts_may_be_absent_or_null(self):
        results = synthetic.demo()
        for name in ("command", "corpus", "model"):
            results.pop(name)
        for variant in results["variants"]:
            for name in ("title", "predicted_share", "losses", "router"):
                variant.pop(name)
            run = variant["runs"][0]
            for name in ("history", "difficulty", "top_tokens", "distance"):
                run[name] = None
            run.pop("synergy")
        results["something_new"] = {"any": "thing"}
        check(results)


class Files(unittest.TestCase):
    def read(self, content):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "results.json"
            path.write_bytes(content)
            return load(path)

    def test_a_whole_file(self):
        results = synthetic.demo()
        self.assertEqual(self.read(json.dumps(results).encode()), results)

    def test_what_is_no_such_file(self):
        whole = json.dumps(synthetic.demo()).encode()
        for content, words in (
            (whole[:1000], "cut off"),
            (b"", "not JSON"),
            (b"\xff\xfe", "not UTF-8"),
            (whole.replace(b'"budget_flops": 3000000000000.0', b'"budget_flops": NaN'), "NaN"),
        ):
            with self.assertRaisesRegex(ResultsError, words):
                self.read(content)
        with self.assertRaisesRegex(ResultsError, "cannot read"):
            load("/nowhere/results.json")


def places(value, at=()):
    """The way to every entry of a file; of long lists to the first two."""
    entries = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, entry in entries:
        yield (*at, key)
        yield from places(entry, (*at, key))


def shortened():
    results = synthetic.demo()
    for variant in results["variants"]:
        for run in variant["runs"]:
            run["history"] = run["history"][:3]
            run["difficulty"]["bins"] = run["difficulty"]["bins"][:2]
            run["top_tokens"] = [[tokens[:1] for tokens in layer] for layer in run["top_tokens"]]
    return results


class Damage(unittest.TestCase):
    """Whatever stands in one place of the file: an error that the user can read, or a report."""

    def test_every_place_with_other_values(self):
        whole = json.dumps(shortened())
        for place in places(shortened()):
            for other in (None, "x", -1, 0, [], {}, "missing", "shorter"):
                results = json.loads(whole)
                holder = results
                for key in place[:-1]:
                    holder = holder[key]
                if other == "missing":
                    del holder[place[-1]]
                elif other == "shorter" and isinstance(holder[place[-1]], list):
                    holder[place[-1]].pop()
                else:
                    holder[place[-1]] = other
                with self.subTest(place=place, other=other), contextlib.suppress(ResultsError):
                    check(results)
                    findings.summary(results)
                    tables.html(tables.findings_table(results))
                    tables.html(tables.variant_table(results))
                    tables.ablation_tables(results)


if __name__ == "__main__":
    unittest.main()
