# SPDX-License-Identifier: MIT
import re
import unittest

import synthetic
from paths import SCRIPTS  # noqa: F401  (makes the next imports find the package)
from report.findings import AGREES, DIFFERS, OPEN, findings, summary
from report.noise import ABOVE, BELOW, INSIDE, UNKNOWN, compare, noise_of
from report.tables import ablation_tables, cell_markdown, html, markdown, variant_table
from report.variants import (
    baseline,
    best_equal_of_width,
    controls_of,
    loss_ablation,
    main_variant,
    named,
    predicted_share,
    sample_std,
    width_pattern,
)


def with_losses(results, **bits):
    """The same results with these final losses, a number or a list with one for each run."""
    for name, values in bits.items():
        runs = named(results, name.replace("_", "-"))["runs"]
        for run, value in zip(runs, values if isinstance(values, list) else [values] * len(runs)):
            run["final"]["bits_per_byte"] = value
    return results


class Noise(unittest.TestCase):
    def test_sample_standard_deviation(self):
        self.assertAlmostEqual(sample_std([1.0, 2.0, 3.0, 4.0]), 1.2909944487)
        self.assertEqual(sample_std([2.0]), 0.0)

    def test_single_runs_use_the_assumption(self):
        noise = noise_of(synthetic.demo())
        self.assertEqual((noise.std, noise.estimated), (0.009, False))
        self.assertAlmostEqual(noise.limit(1, 1), 0.025, places=3)
        self.assertGreaterEqual(noise.limit(1, 1), 0.025)
        self.assertLess(noise.limit(4, 4), noise.limit(1, 4))
        self.assertIn("assumed", noise.sentence())

    def test_several_seeds_are_pooled(self):
        results = synthetic.results(synthetic.main_three((1, 2, 3), 3e12), 3e12)
        with_losses(results, homogeneous=[2.0, 2.01, 2.02], hmoe=[2.0, 2.0, 2.0], homogeneous_117=[2.0, 2.02, 2.04])
        noise = noise_of(results)
        self.assertTrue(noise.estimated)
        self.assertEqual(noise.freedom, 6)
        self.assertAlmostEqual(noise.std, ((2 * 0.01**2 + 2 * 0.02**2) / 6) ** 0.5)
        # Student's t with 6 degrees of freedom, two means over three runs.
        self.assertAlmostEqual(noise.limit(3, 3), 2.447 * noise.std * (2 / 3) ** 0.5)
        self.assertIn("estimated", noise.sentence())

    def test_two_seeds_of_one_variant_are_too_few(self):
        results = synthetic.results([synthetic.variant("x", "x", [128] * 8, seeds=(1, 2))], 3e12)
        self.assertFalse(noise_of(results).estimated)

    def test_two_single_runs_never_count_below_the_limit(self):
        results = synthetic.full()
        for variant in results["variants"]:
            for run in variant["runs"]:
                run["final"]["bits_per_byte"] = 2.0  # seeds that agree perfectly must not make 0.02 a finding
        with_losses(results, geometric=2.02)
        self.assertEqual(
            compare(named(results, "geometric"), named(results, "dense"), noise_of(results)).verdict, INSIDE
        )


class Verdicts(unittest.TestCase):
    def verdict(self, difference, make=synthetic.demo):
        results = with_losses(make(), homogeneous=2.2, hmoe=2.2 + difference, homogeneous_117=2.2)
        return compare(main_variant(results), baseline(results), noise_of(results)).verdict, summary(results)

    def test_no_winner_inside_the_noise(self):
        for thousandth in range(-24, 25):
            verdict, words = self.verdict(thousandth / 1000)
            self.assertEqual(verdict, INSIDE)
            self.assertIn("no winner", words)
            self.assertNotRegex(words, r"better|(lower|higher) (loss|by)")

    def test_a_difference_beyond_the_noise_is_named(self):
        verdict, words = self.verdict(-0.04)
        self.assertEqual(verdict, BELOW)
        self.assertIn("−0.040 bits per byte, lower by more than the noise", words)
        self.assertNotIn("no winner", words)
        verdict, words = self.verdict(0.04)
        self.assertEqual(verdict, ABOVE)
        self.assertIn("Unlike in the paper, the heterogeneous layer has the higher loss", words)

    def test_a_tiny_budget_is_not_judged(self):
        verdict, words = self.verdict(-0.4, synthetic.smoke)
        self.assertEqual(verdict, UNKNOWN)
        self.assertIn("losses are not compared", words)
        self.assertNotIn("paper", words)

    def test_the_paper_s_statements(self):
        results = synthetic.full()
        with_losses(results, hmoe=2.015, homogeneous=2.015, geometric=2.2, hybrid=2.2, dense=2.2, top_p=1.9)
        verdicts = {finding.question: finding.verdict for finding in findings(results)}
        self.assertEqual(verdicts["Loss at equal training FLOPs, heterogeneous against homogeneous"], OPEN)
        self.assertEqual(verdicts["Geometric against arithmetic widths"], AGREES)
        self.assertEqual(verdicts["Hybrid against arithmetic widths"], DIFFERS)
        self.assertEqual(verdicts["Activated width during training, with the parameter penalty"], AGREES)
        self.assertEqual(verdicts["Unequal experts without an auxiliary loss"], DIFFERS)
        self.assertEqual(verdicts["Homogeneous experts against the dense model"], AGREES)
        self.assertEqual(verdicts["Do harder tokens get wider experts?"], DIFFERS)
        top_p = [verdict for question, verdict in verdicts.items() if question.endswith("(the paper's), loss against top-k")]
        self.assertEqual(top_p, [AGREES])

    def test_top_p_beside_equal_experts_with_top_p(self):
        results = with_losses(synthetic.full(), top_p=2.0, homogeneous_top_p=2.0)
        asked = "loss against equal experts with the same router (homogeneous 8×128, top-p 0.6"
        for value, verdict in ((2.0, "no difference seen"), (1.9, "higher loss"), (2.1, "lower loss")):
            with_losses(results, homogeneous_top_p=value)
            found = [f.verdict for f in findings(results) if asked in f.question]
            self.assertEqual(found, [verdict])

    def test_unequal_variants_beside_equal_ones_of_their_width(self):
        results = synthetic.full()
        width = {v["name"]: v["runs"][0]["final"]["activated_width"] for v in results["variants"]}
        self.assertLess(width["homogeneous-13x79"], width["top-p"])
        equal = best_equal_of_width(results, named(results, "top-p"))
        self.assertEqual(equal["name"], "homogeneous-13x79")
        # Only the control of width 10 activates as little as the geometric layer.
        self.assertLess(width["geometric"], width["homogeneous-13x79"])
        self.assertEqual(best_equal_of_width(results, named(results, "geometric"))["name"], "homogeneous-10")
        names = {"hmoe", "arithmetic-no-loss", "arithmetic-load-balance", "hybrid", "top-p", "geometric"}
        with_losses(results, homogeneous_13x79=1.5, homogeneous_10=1.5)
        words = summary(results)
        self.assertIn(f"0 of {len(names)} unequal variants have a lower loss", words)
        self.assertIn("in the means equal experts beat every unequal variant of their activated width", words)
        with_losses(results, top_p=1.4)
        words = summary(results)
        self.assertIn(f"1 of {len(names)} unequal variants have a lower loss", words)
        self.assertNotIn("beat every unequal variant", words)
        self.assertNotIn("unequal variants have a lower loss", summary(synthetic.demo()))

    def test_the_first_paragraph_names_the_machine_and_the_run(self):
        words = summary(synthetic.demo())
        for part in (
            "Synthetic CPU 9000 with 2 threads",
            "Three variants",
            "3 TFLOP",
            "dict-gcide.txt",
            "233.5 was predicted",
        ):
            self.assertIn(part, words)


class Parts(unittest.TestCase):
    def test_who_is_who(self):
        results = synthetic.full()
        self.assertEqual(baseline(results)["name"], "homogeneous")
        self.assertEqual(main_variant(results)["name"], "hmoe")
        self.assertEqual([v["name"] for v in controls_of(results, main_variant(results))], ["homogeneous-117"])

    def test_other_shared_experts_are_another_layer(self):
        results = synthetic.full()
        before = len(loss_ablation(results))
        named(results, "arithmetic-load-balance")["shared"] = {"kind": "always-on", "widths": [64]}
        self.assertEqual(len(loss_ablation(results)), before - 1)

    def test_a_control_that_several_variants_share(self):
        results = synthetic.full()
        load_balance = named(results, "arithmetic-load-balance")
        load_balance["control"] = "homogeneous"
        self.assertEqual(controls_of(results, load_balance), [named(results, "homogeneous")])
        load_balance["control"] = "still-in-training"
        self.assertEqual(controls_of(results, load_balance), [])
        main_variant(results)["control"] = "homogeneous-117"
        self.assertEqual(len(controls_of(results, main_variant(results))), 1)

    def test_both_spellings_of_a_loss(self):
        results = synthetic.demo()
        results["variants"][1]["losses"][0]["name"] = "parameter_penalty"
        self.assertEqual(main_variant(results)["name"], "hmoe")

    def test_width_patterns(self):
        for widths, pattern in (
            ([72, 88, 104, 120, 136, 152, 168, 184], "arithmetic"),
            ([4, 8, 16, 32, 64, 128, 257, 515], "geometric"),
            ([64, 64, 64, 64, 128, 128, 256, 256], "repeated"),
            ([128] * 8, ""),
        ):
            self.assertEqual(width_pattern({"widths": widths}), pattern)

    def test_shares_without_a_predicted_width_are_no_forecast(self):
        variant = main_variant(synthetic.demo())
        self.assertAlmostEqual(sum(predicted_share(variant)), 1.0)
        self.assertIsNone(predicted_share({**variant, "predicted_activated_width": None}))


class Tables(unittest.TestCase):
    def test_the_table_of_variants(self):
        table = variant_table(with_losses(synthetic.demo(), homogeneous=2.2044))
        self.assertEqual(table.rows[0][1], ("2.204 ± 0.009", "1 run, assumed spread"))
        self.assertEqual(table.rows[0][3], ("256.0", "predicted 256.0"))
        self.assertEqual(table.strong_row, 1)

    def test_every_row_is_as_long_as_the_head(self):
        for make in (synthetic.demo, synthetic.full, synthetic.smoke):
            results = make()
            for table in [variant_table(results), *(table for _, table in ablation_tables(results))]:
                for row in table.rows:
                    self.assertEqual(len(row), len(table.head))

    def test_each_difference_has_its_noise_beside_it(self):
        for _, table in ablation_tables(synthetic.full()):
            for row in table.rows:
                for cell in row[3:]:
                    if cell != "–":
                        self.assertRegex(cell[1], r"noise ±0\.\d{3}: ")

    def test_markdown_has_the_command_and_the_machine(self):
        words = markdown(synthetic.demo())
        lines = words.splitlines()
        self.assertTrue(all(re.fullmatch(r"\|.*\|", line) for line in lines[:5]))
        self.assertEqual({line.count("|") for line in lines[:5]}, {8})
        self.assertIn("`language_model compare --list demo --threads 2` on Synthetic CPU 9000", words)

    def test_data_cannot_break_out_of_a_table(self):
        results = synthetic.demo()
        results["variants"][0]["title"] = "<script>|x|</script>"
        self.assertNotIn("<script>", html(variant_table(results)))
        self.assertEqual(cell_markdown("a|b<c>\n"), "a\\|b\\<c\\> ")
        self.assertEqual({line.count(" | ") for line in markdown(results).splitlines()[:5]}, {6})


if __name__ == "__main__":
    unittest.main()
