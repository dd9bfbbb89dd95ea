# SPDX-License-Identifier: MIT
import csv
import io
import json
import re
import tempfile
import unittest
from contextlib import redirect_stderr, redirect_stdout
from html.parser import HTMLParser
from pathlib import Path

import paths  # noqa: F401
import dispatch_report
from measurements import dispatch_charts, dispatch_findings, dispatch_map, dispatch_page, dispatch_results

EVIL = "<script>alert('x')</script>&\"'"


def cell(strategy, tokens, seconds, load="uniform", shape="arithmetic", phase="forward", form="f32", **more):
    spread = more.pop("spread", 0.01)
    return {
        "name": f"dispatch/{shape}/{form}/{strategy}/tokens:{tokens}/{load}/{phase}/threads:2",
        "shape": shape, "format": form, "strategy": strategy, "tokens": tokens, "load": load, "phase": phase, "threads": 2,
        "drops": strategy == "padded", "seconds": seconds, "q25": seconds * (1 - spread), "q75": seconds * (1 + spread),
        "runs": 100, "share_of_even_rounds": seconds, "share_of_odd_rounds": seconds, "flops": 1e9, "bytes": 1e8, "imbalance": 2.0, "peak": 2e11, "dram": 3e10, "efficiency": 0.5,
        "rows": 2 * tokens, "padding": 0, "dropped": 0, "workspace": 1000000, "stage gate/up": seconds,
        "stage backward down": seconds / 2,
    } | more  # fmt: skip


def synthetic():
    cells = []
    for tokens in (1, 16, 1024):
        for load in ("uniform", "hot"):
            times = {"sorted": 1.1e-3, "scattered": 1e-3, "padded": 0.5e-3, "automatic": 1.0e-3}
            for strategy, seconds in times.items():
                seconds *= tokens * (2 if load == "hot" else 1)
                more = {"predicted": seconds * 1.5} if strategy == "sorted" else {}
                if tokens <= 16:
                    more["p99"] = 2 * seconds
                if strategy == "scattered":
                    more["workspace"] = 3000000
                cells.append(cell(strategy, tokens, seconds, load, **more))
    capacity = [
        {"capacity": policy, "shape": "arithmetic", "load": load, "tokens": 1024, "factor": factor, "dropped": 0.1,
         "padding": 0.2, "wasted_flops": 0.25, "imbalance": 1.5 if policy == "by_width" else 2.5}
        for policy in ("by_factor", "by_width") for load in ("uniform", "hot") for factor in (1, 1.25, 2)
    ]  # fmt: skip
    described = {"described": "arithmetic", "d_model": 768, "k": 2, "widths": [864, 2208]}
    run = {"run": "one CPU", "threads": 2, "compiler": "g++", "seconds": 1, "points": 6}
    return [{"selection": "s"}, run, described, *capacity, *cells, {"end": 6}]


FOLDER = tempfile.TemporaryDirectory()


def new_path(name):
    return Path(tempfile.mkdtemp(dir=FOLDER.name), name)


def written(entries, tail=""):
    path = new_path("cells.jsonl")
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries) + tail, encoding="utf-8")
    return path


class Resuming(unittest.TestCase):
    def test_an_interrupted_run_of_the_same_selection_goes_on(self):
        path = written(synthetic()[:-3], tail='{"name": "torn')
        before = path.read_text()
        self.assertEqual(dispatch_results.prepare(path, "s"), 22)
        self.assertEqual(path.read_text(), before)

    def test_what_ended_or_has_another_selection_begins_anew(self):
        for entries, selection in ((synthetic(), "s"), (synthetic()[:-1], "other"), ([{"name": "x"}], "s")):
            path = written(entries)
            self.assertEqual(dispatch_results.prepare(path, selection), 0)
            self.assertEqual([*dispatch_results.lines(path)], [{"selection": selection}])

    def test_a_first_run_begins_a_file_that_the_next_one_goes_on_with(self):
        path = new_path("new.jsonl")
        self.assertEqual(dispatch_results.prepare(path, 'a "b"'), 0)
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(cell("sorted", 1, 1.0)) + "\n")
        self.assertEqual(dispatch_results.prepare(path, 'a "b"'), 1)

    def test_the_last_line_of_a_cell_counts_and_a_torn_one_does_not(self):
        first, last = cell("sorted", 1, 1.0), cell("sorted", 1, 2.0)
        path = written([first, last], tail=json.dumps(first)[:40] + "\n" + json.dumps(cell("looped", 1, 3.0)) + "\n")
        found = dispatch_results.read(path)
        self.assertEqual([(c["strategy"], c["seconds"]) for c in found["cells"]], [("sorted", 2.0), ("looped", 3.0)])
        self.assertFalse(found["complete"])


class Numbers(unittest.TestCase):
    def test_uncertainty_of_a_median(self):
        # Quartiles of a normal distribution are 0.6745 standard deviations off; a median of n varies by 1.2533 σ / √n.
        one = cell("sorted", 1, 10.0)
        one |= {"q25": 10 - 0.6745, "q75": 10 + 0.6745, "runs": 25}
        self.assertAlmostEqual(dispatch_results.uncertainty(one), 1.2533 / 5 / 10, places=5)

    def test_what_drops_and_automatic_win_nothing(self):
        (point,) = dispatch_results.points([cell("padded", 1, 1.0), cell("automatic", 1, 2.0), cell("sorted", 1, 4.0),
                                            cell("looped", 1, 3.0)]).values()  # fmt: skip
        winner, ahead, told = dispatch_results.margin(point)
        self.assertEqual(winner["strategy"], "looped")
        self.assertAlmostEqual(ahead, 1 / 3)
        self.assertTrue(told)

    def test_a_margin_inside_the_noise_is_not_told(self):
        near = {"sorted": cell("sorted", 1, 1.0, spread=0.1), "looped": cell("looped", 1, 1.01, spread=0.1)}
        self.assertFalse(dispatch_results.margin(near)[2])
        sure = {"sorted": cell("sorted", 1, 1.0, spread=0.001), "looped": cell("looped", 1, 1.01, spread=0.001)}
        self.assertTrue(dispatch_results.margin(sure)[2])
        self.assertIsNone(dispatch_results.margin({"sorted": cell("sorted", 1, 1.0)}))

    def test_csv_has_a_row_for_each_cell(self):
        text = dispatch_results.csv_text(dispatch_results.read(written(synthetic())))
        rows = list(csv.DictReader(io.StringIO(text)))
        self.assertEqual(len(rows), 24)
        self.assertEqual(float(rows[0]["seconds"]), 1.1e-3)
        self.assertEqual(rows[0]["strategy"], "sorted")


class Findings(unittest.TestCase):
    def text(self, entries):
        return " ".join(dispatch_findings.findings(dispatch_results.read(written(entries))))

    def test_picks_are_judged_by_another_run(self):
        def run(*times):
            cells = []
            for tokens, picked, (of_sorted, of_scattered) in zip((1, 16), ("sorted", "scattered"), times):
                cells += [cell("sorted", tokens, of_sorted), cell("scattered", tokens, of_scattered),
                          cell("automatic", tokens, 1.0, picked=picked)]  # fmt: skip
            path = new_path("cells.jsonl")
            path.write_text("\n".join(json.dumps(line) for line in [{"selection": "s"}, *cells]))
            return dispatch_results.read(path)

        text = dispatch_findings.beside(run((1.0, 1.2), (1.0, 1.1)), run((1.2, 1.0), (1.0, 1.1)))
        self.assertIn("within 3 % at 1 of 2 points", text)  # at 1 token each run has the other's best one behind
        self.assertIn("16 tokens, uniform, 2 threads: 10 %", text)

    def test_winners_automatic_model_skew_and_capacity_with_their_numbers(self):
        text = self.text(synthetic())
        self.assertIn("At 6 of 6 points", text)
        self.assertIn("scattered at 6, by 10 % in the median", text)
        self.assertIn("within 3 % of the best strategy at 100 % of 6 points", text)
        self.assertIn("predicts 0.0 % of 6 times, within 25 %", text)
        self.assertIn("1.50 times the measured time", text)
        self.assertIn("to 2.00 (hot on arithmetic) times as long", text)
        self.assertIn("2.5 times the mean FLOPs; one by width", text)
        self.assertIn("and scattered the most, 3.0 MB", text)

    def test_the_best_of_one_half_of_the_runs_is_judged_by_the_other_half(self):
        halves = lambda even, odd: {"share_of_even_rounds": even, "share_of_odd_rounds": odd}  # noqa: E731
        point = {
            "sorted": cell("sorted", 1, 1.0, **halves(0.8, 1.2)),
            "looped": cell("looped", 1, 1.0, **halves(1.0, 1.0)),
            "automatic": cell("automatic", 1, 1.0, **halves(1.1, 1.2)),
        }
        loss, _ = dispatch_findings.loss_of("automatic", point)
        self.assertAlmostEqual(loss, (1.2 / 1.2 + 1.1 / 1.0) / 2 - 1)

    def test_held_out_points_are_judged_apart_and_a_tuned_table_beside_the_model(self):
        entries = synthetic()
        for name in ("sorted", "automatic", "tuned"):
            late = {"tuned": 1.2, "automatic": 1.01}.get(name, 1.0)
            more = {"predicted": 1.1, "picked": "looped"} if name != "sorted" else {}
            entries.append(cell(name, 64, late, shape="narrow_24", held_out=True, **more))
        text = self.text(entries)
        self.assertIn("at 100 % of 6 points, and at 100 % of 1 points that are held out", text)
        self.assertIn("it is within 3 % of the best strategy at 0.0 % of 1 points that are held out (other widths and loads). "
                      "It is furthest off with narrow_24, f32, 64 tokens, uniform, 2 threads: 20 % slower than sorted, picking "
                      "looped.", text)  # fmt: skip
        self.assertIn("predicts 0.0 % of 6 times, and 100 % of 2 times that are held out", text)
        (won,) = dispatch_results.points(entries[-3:]).values()
        self.assertEqual([c["strategy"] for c in dispatch_results.ranking(won)], ["sorted"])

    def test_a_calm_run_is_reliable_and_a_noisy_one_is_not(self):
        self.assertEqual(dispatch_findings.unreliable(dispatch_results.read(written(synthetic()))), "")
        noisy = synthetic()
        for entry in noisy:
            if "seconds" in entry and "name" in entry:
                entry |= {"q25": 0.2 * entry["seconds"], "q75": 2 * entry["seconds"], "runs": 4}
        self.assertIn("uncertain by more than", dispatch_findings.unreliable(dispatch_results.read(written(noisy))))

    def test_moving_limits_and_several_machines_are_no_reliable_run(self):
        moved = synthetic()
        next(entry for entry in moved if "dram" in entry)["dram"] = 3e9
        self.assertIn("the memory with 2 threads was measured as 3 to 30 GB/s",
                      dispatch_findings.unreliable(dispatch_results.read(written(moved))))  # fmt: skip
        other = [*synthetic(), {"run": "another", "threads": 2, "compiler": "g++"}]
        self.assertIn("different machines", dispatch_findings.unreliable(dispatch_results.read(written(other))))

    def test_failures_are_told(self):
        broken = {**cell("mine", 1, 1.0), "error": "it differs"}
        del broken["seconds"]
        text = self.text([*synthetic(), broken, {"refused": "theirs", "reason": "y"}])
        self.assertIn("theirs breaks the laws of dispatch", text)
        self.assertIn("1 cells failed", text)
        self.assertIn("it differs", text)


class Balance(HTMLParser):
    """Counts tags that are open, but for those that have no end."""

    def __init__(self):
        super().__init__()
        self.open, self.sources = [], []

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_starttag(self, tag, attributes):
        self.sources += [value for name, value in attributes if name in ("src", "href") and not value.startswith("#")]
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag


class Page(unittest.TestCase):
    def html(self, entries, command="c"):
        return dispatch_page.html(dispatch_results.read(written(entries)), command)

    def test_every_section_is_there_and_the_page_needs_nothing_else(self):
        text = self.html(synthetic())
        for name in ("findings", "winners", "times", "stages", "skew", "padding", "drops", "memory", "model", "latency",
                     "cells", "setup"):  # fmt: skip
            self.assertIn(f'<section id="{name}">', text)
        reader = Balance()
        reader.feed(text)
        self.assertEqual((reader.open, reader.sources), ([], []))
        self.assertNotIn("url(", text)
        self.assertIn('name="viewport"', text)

    def test_text_from_the_data_stays_text(self):
        entries = [*synthetic(), {"refused": EVIL, "reason": EVIL}, {"run": EVIL, "threads": 2, "compiler": EVIL}]
        for load in (EVIL, "uniform"):  # only the uniform one is in most figures
            entries += [cell(EVIL, tokens, 1.0, load=load, shape=EVIL, form=EVIL, **{"stage " + EVIL: 1.0})
                        for tokens in (1, 64)]  # fmt: skip
        text = self.html(entries, EVIL)
        self.assertNotIn("<script", text)

    def test_the_map_fills_what_can_be_told_and_frames_what_cannot(self):
        text = self.html(synthetic())
        self.assertEqual(len(re.findall(r'<td style="background:#D55E00">scattered', text)), 6)
        near = self.html([cell("sorted", t, 1.0, load, spread=0.2) for t in (1, 2) for load in ("uniform", "hot")]
                         + [cell("looped", t, 1.001, load, spread=0.2) for t in (1, 2) for load in ("uniform", "hot")])  # fmt: skip
        self.assertEqual(len(re.findall(r'<td class="near"[^>]*>sorted', near)), 4)

    def test_a_noisy_run_leads_with_that(self):
        moved = synthetic()
        next(entry for entry in moved if "dram" in entry)["dram"] = 3e9
        self.assertIn('<p class="lead">This run is too noisy to tell strategies apart', self.html(moved))
        self.assertNotIn("too noisy", self.html(synthetic()))

    def test_a_run_of_nothing_or_of_one_cell_or_without_its_end_has_a_page(self):
        self.assertIn("This run measured nothing", self.html([]))
        self.assertIn('<section id="cells">', self.html([cell("sorted", 1, 1.0)]))
        self.assertIn("did not come to its end", self.html(synthetic()[:-1]))


class Map(unittest.TestCase):
    def svg(self, entries, command="c"):
        return dispatch_map.svg(dispatch_results.read(written(entries)), command)

    def test_a_field_for_each_load_and_number_of_tokens_with_winner_margin_cpu_and_command(self):
        text = self.svg([*synthetic(), *(cell(s, 16, t, form="q8") for s, t in (("sorted", 1.0), ("looped", 1.5)))], "the <command>")
        fields = re.findall(r'<rect x="(\d+)" y="(\d+)"[^>]*fill="(#\w+)" stroke="#\w+"', text)
        self.assertEqual(len(fields), 7)
        self.assertEqual(len({y for _, y, _ in fields}), 3)  # uniform, hot, and uniform in q8
        self.assertEqual([fill for *_, fill in fields].count("#D55E00"), 6)
        self.assertEqual(text.count(">scattered<"), 6)
        self.assertEqual(text.count(">+50 %<"), 1)
        self.assertIn("one CPU, 2 threads: the &lt;command&gt;", text)
        reader = Balance()
        reader.feed(text)
        self.assertEqual((reader.open, reader.sources), ([], []))

    def test_held_out_points_and_one_point_alone_are_no_map(self):
        self.assertEqual(self.svg([cell("sorted", 1, 1.0), cell("looped", 1, 2.0)]), "")
        self.assertEqual(self.svg([cell(s, t, 1.0, held_out=True) for s in ("sorted", "looped") for t in (2, 8)]), "")


class Charts(unittest.TestCase):
    def test_a_point_is_where_its_numbers_say(self):
        panel = dispatch_charts.lines("t", {"sorted": {1: 1.0, 100: 100.0, 10: 10.0}}, "x", "y")
        dots = [tuple(map(float, dot)) for dot in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', panel.picture)]
        self.assertEqual(len(dots), 3)
        (x1, y1), (x2, y2), (x3, y3) = sorted(dots)
        self.assertAlmostEqual(x2 - x1, x3 - x2, delta=0.2)  # equal steps on logarithmic axes
        self.assertAlmostEqual(y1 - y2, y2 - y3, delta=0.2)
        self.assertGreater(y1, y3)

    def test_bars_are_as_long_as_their_values(self):
        panel = dispatch_charts.stacked("t", {"a": {"p": 1.0, "q": 3.0}, "b": {"p": 2.0}}, "ms")
        widths = [float(width) for width in re.findall(r'<rect [^>]*width="([\d.]+)"', panel.picture)]
        self.assertAlmostEqual(widths[1] / widths[0], 3, delta=0.05)
        self.assertAlmostEqual(widths[2] / widths[0], 2, delta=0.05)

    def test_a_strategy_of_ones_own_has_a_colour_that_no_shipped_one_has(self):
        self.assertNotIn(dispatch_charts.colour("mine", ["sorted", "mine"]), dispatch_charts.COLOURS.values())


class Command(unittest.TestCase):
    def run_it(self, *arguments):
        out, error = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(error):
            status = dispatch_report.main([str(argument) for argument in arguments])
        return status, out.getvalue(), error.getvalue()

    def test_it_writes_json_csv_and_the_page(self):
        path = written(synthetic())
        files = [path.with_name(name) for name in ("a.json", "a.csv", "a.html", "a.svg")]
        status, _, _ = self.run_it(path, "--json", files[0], "--csv", files[1], "--report", files[2], "--map", files[3])
        self.assertEqual(status, 0)
        self.assertEqual(len(json.loads(files[0].read_text())["cells"]), 24)
        self.assertTrue(files[2].read_text().startswith("<!doctype html>"))
        self.assertTrue(files[3].read_text().startswith("<svg "))

    def test_it_prepares_and_says_how_many_cells_are_there(self):
        self.assertEqual(self.run_it(written(synthetic()[:-1]), "--prepare", "s"), (0, "24\n", ""))

    def test_a_file_of_something_else_is_an_error_that_names_it(self):
        status, _, error = self.run_it(written([{"name": "x", "seconds": 1}]), "--report", "/nowhere")
        self.assertEqual(status, 1)
        self.assertIn("is not what benchmarks/dispatch writes", error)
        self.assertEqual(self.run_it("/nowhere/x.jsonl", "--csv", "/nowhere/y")[0], 1)


if __name__ == "__main__":
    unittest.main()
