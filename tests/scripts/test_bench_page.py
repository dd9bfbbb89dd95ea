# SPDX-License-Identifier: MIT
import unittest
from unittest import mock

import needs_matplotlib  # noqa: F401
from matplotlib.figure import Figure
from measurements import figures, page

EVIL = "<script>alert('x')</script>&\"'"


def layer(subject, tokens, milliseconds, shape, routing="uniform", threads=1):
    return {"shape": shape, "dtype": "f32", "subject": subject, "tokens": tokens, "threads": threads,
            "routing": routing, "milliseconds": milliseconds, "spread": 0.01, "gflops": 10.0 / milliseconds,
            "efficiency": 0.5, "router_share": 0.01, "peak_gflops": 100.0, "dram_gbs": 10.0}  # fmt: skip


def synthetic():
    cells = [
        layer(subject, tokens, time, shape, routing, threads)
        for shape in ("hmoe_0.4b", "hmoe_0.4b_equal")
        for subject, time in (("simd", 1.0), ("padded", 1.5), ("openblas_per_expert", 2.0))
        for tokens in (1, 64)
        for routing in ("uniform", "zipf")
        for threads in (1, 2)
    ]
    steps = [
        {"shape": "hmoe_0.4b", "dtype": "f32", "subject": subject, "tokens": 256, "threads": 1, "phase": phase,
         "milliseconds": 1.0, "spread": None}
        for subject in ("simd", "pytorch_mixtral")
        for phase in ("forward", "backward", "step")
    ]  # fmt: skip
    return {
        "command": EVIL, "machine": {"CPU": EVIL}, "versions": {"padded": EVIL}, "layer": cells, "training": steps,
        "skipped": [{"name": EVIL, "reason": EVIL}],
        "compile_time": {"command": EVIL, "units": [{"name": EVIL, "seconds": 1, "cpu_seconds": 1, "megabytes": 1}],
                         "programs": [{"name": EVIL, "units": 2, "seconds": 3, "longest": 2}]},
    }  # fmt: skip


class Page(unittest.TestCase):
    def test_every_section_is_there_and_text_from_the_data_stays_text(self):
        text = page.html(synthetic())
        for name in ("efficiency", "competitors", "unequal", "routing", "training", "layers", "steps", "compile",
                     "skipped", "setup"):  # fmt: skip
            self.assertIn(f'<section id="{name}">', text)
        self.assertNotIn("<script", text)
        self.assertIn("takes 1.50 times hmoe&#x27;s time", text)

    def test_limits_that_moved_make_the_whole_page_unreliable(self):
        results = synthetic()
        self.assertNotIn("not reliable", page.html(results))
        moved = [cell for cell in results["layer"] if cell["threads"] == 1]
        moved[0]["dram_gbs"], moved[1]["dram_gbs"] = 3.0, 25.0
        text = page.html(results)
        self.assertIn("This run is not reliable", text)
        self.assertIn("the memory with 1 thread was measured as 3 to 25 GB/s", text)
        self.assertNotIn("hardest competitor", text)

    def test_peaks_of_different_data_types_are_no_noise(self):
        results = synthetic()
        for cell in results["layer"]:
            if cell["shape"] == "hmoe_0.4b":
                cell["dtype"], cell["peak_gflops"] = "bf16", 235.0
        self.assertNotIn("not reliable", page.html(results))

    def test_shares_above_1_and_noisy_cells_are_named(self):
        results = synthetic()
        results["layer"][0]["router_share"] = 1.3
        results["layer"][1]["spread"] = 0.25
        text = page.html(results)
        self.assertIn('<section id="doubtful">', text)
        self.assertIn("took 1.30 times as long as the whole", text)
        self.assertIn("spread by 25 %", text)
        self.assertNotIn('<section id="doubtful">', page.html(synthetic()))

    def test_spreads_are_drawn_as_bars(self):
        axes = Figure().subplots()
        figures.lines(axes, {"f32": {1: 2.0, 64: 3.0}}, "efficiency", spreads={"f32": {1: 0.1, 64: None}})
        (bars,) = axes.containers[0].lines[2]
        self.assertEqual([round(high[1] - low[1], 6) for low, high in bars.get_segments()], [0.4, 0.0])
        with mock.patch.object(figures, "lines", wraps=figures.lines) as drawn:
            page.html(synthetic())
        given = [call.args[5] for call in drawn.call_args_list if len(call.args) > 5]
        self.assertIn({"f32": {1: 0.01, 64: 0.01}}, given)

    def test_a_run_without_hmoe_or_without_anything_has_a_page_too(self):
        results = synthetic()
        results["layer"] = [cell for cell in results["layer"] if cell["subject"] == "padded"]
        self.assertIn("no layer of hmoe itself", page.html(results))
        empty = {**results, "layer": [], "training": [], "skipped": [], "compile_time": None}
        self.assertIn('<section id="setup">', page.html(empty))


if __name__ == "__main__":
    unittest.main()
