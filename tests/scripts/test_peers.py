# SPDX-License-Identifier: MIT
"""The race of hmoe and its peers with stand-ins for all of them, and the report on it."""

import argparse
import io
import json
import os
import re
import sys
import tempfile
import unittest
from contextlib import redirect_stdout
from pathlib import Path

from paths import ROOT

import peers_report
from measurements import dispatch_results, peers_findings, peers_page

sys.path.insert(0, str(ROOT / "benchmarks"))
from peers import race  # noqa: E402

EVIL = "<script>alert('x')</script>&\"'"
FOLDER = tempfile.TemporaryDirectory()

# Stands for benchmarks/peers and for a peer: how it behaves is its last argument but one, the descriptor the last.
STAND_IN = """
import json, os, sys
if sys.argv[1] == "export":
    folder, shape, tokens, loads = sys.argv[2:]
    if shape == "wide":
        sys.exit("wide needs 99 GB of memory")
    inputs = [{"tokens": int(t), "load": l, "count": 2, "flops": [1e9, 3e9], "weights": [1e6, 3e6]}
              for l in loads.split(",") for t in tokens.split(",")]
    said = {"shape": shape, "d_model": 64, "widths": [32, 64], "top_k": 1, "cold_bytes": 1e6, "inputs": inputs}
    open(folder + "/problem.json", "w").write(json.dumps(said))
    sys.exit()
kind, descriptor = sys.argv[-2:]
def say(**reply):
    os.write(int(descriptor), (json.dumps(reply) + chr(10)).encode())
print("a library's own words", flush=True)
if kind == "refuses":
    say(failed="it needs AMX")
    sys.exit()
say(ready=True, version=kind + " 1", bytes_per_weight=2, copies=3)
for line in sys.stdin:
    request = json.loads(line)
    if request["do"] == "limits":
        say(peak=2e11, dram=1e10)
    elif request["do"] == "check":
        say(difference={"wrong": 0.9, "not a number": None}.get(kind, 0.01))
    elif kind == "dies" and request["tokens"] == 16:
        print("out of luck", file=sys.stderr, flush=True)
        os.kill(os.getpid(), 9)
    else:
        say(seconds={"hmoe": 1e-3, "slow": 2e-3}.get(kind, 0.5e-3) * request["tokens"], passes=7)
"""
KINDS = {"zentorch": "slow", "kt_kernel": "dies", "ggml": "wrong", "torch_eager": "refuses", "torch_grouped": "not a number"}


class StandIns(race.Race):
    def command(self, subject, form, threads):
        if subject == "vllm":
            raise race.Failed("its package was not unpacked")
        return [sys.executable, "-c", STAND_IN, "serve", KINDS.get(subject, "hmoe")], {}


def options(out, **more):
    packages = Path(tempfile.mkdtemp(dir=FOLDER.name))
    program = packages / "program"
    program.write_text(f"#!{sys.executable}\n{STAND_IN}")
    program.chmod(0o755)
    chosen = {"program": program, "packages": packages, "out": out, "shapes": ("hmoe_0.4b",), "formats": ("bf16",),
              "tokens": (1, 16), "loads": ("uniform",), "threads": (1,), "rounds": 3, "seconds": 0.01,
              "filter": re.compile("")}  # fmt: skip
    return argparse.Namespace(**{**chosen, **more})


def raced(out=None, **more):
    out = out or Path(tempfile.mkdtemp(dir=FOLDER.name), "cells.jsonl")
    with redirect_stdout(io.StringIO()):
        held = StandIns(options(out, **more))
        held.run()
    return out, held


class Racing(unittest.TestCase):
    def test_ratios_errors_and_efficiency_of_those_that_run_and_the_reasons_of_those_that_do_not(self):
        results = dispatch_results.read(raced()[0])
        self.assertTrue(results["complete"])
        cells = {(c["strategy"], c["tokens"]): c for c in results["cells"]}
        slow = cells["zentorch", 16]
        self.assertEqual((slow["ratio"], slow["seconds"], slow["runs"], slow["difference"]), (2.0, 0.032, 3, 0.01))
        # Bytes bind: 2e6 weights of 2 bytes at 1e10 bytes/s take 0.4 ms, 2e9 FLOPs at 2e11/s 10 ms.
        self.assertAlmostEqual(slow["efficiency"], 0.01 / 0.032)
        self.assertEqual(cells["hmoe", 1]["ratio"], 1.0)
        self.assertEqual(cells["kt_kernel", 1]["ratio"], 0.5)
        reasons = {s: cells[s, 16]["error"] for s in ("vllm", "kt_kernel", "ggml", "torch_eager", "torch_grouped")}
        self.assertEqual(reasons["vllm"], "its package was not unpacked")
        self.assertEqual(reasons["kt_kernel"], "its process ended with SIGKILL: out of luck")
        self.assertEqual(reasons["torch_eager"], "it needs AMX")
        self.assertIn("differs from hmoe's in float by 0.9; allowed is 0.02", reasons["ggml"])
        self.assertIn("its result is not a number", reasons["torch_grouped"])

    def test_it_goes_on_where_it_ended_and_measures_only_what_is_selected(self):
        out, _ = raced(filter=re.compile("/zentorch/tokens:1/"))
        names = {c["name"] for c in dispatch_results.read(out)["cells"]}
        self.assertEqual(names, {f"peers/hmoe_0.4b/bf16/{s}/tokens:1/uniform/threads:1" for s in ("hmoe", "zentorch")})
        text = out.read_text()
        out.write_text(text.replace('"zentorch", "tokens": 1', '"zentorch", "tokens": 1, "old": 1') + '{"name": "torn')
        _, again = raced(out)
        found = {c["name"]: c for c in dispatch_results.read(out)["cells"]}
        self.assertIn("old", found["peers/hmoe_0.4b/bf16/zentorch/tokens:1/uniform/threads:1"] | {"old": 1})
        self.assertEqual(len(found), 14)
        self.assertEqual(again.wanted("hmoe_0.4b", "bf16", 1), {})

    def test_a_run_of_some_minutes_goes_on_with_coarse_points_first_and_leaves_what_it_has_no_time_for(self):
        grid = {"tokens": (1, 2, 16), "loads": ("uniform", "zipf"), "threads": (1, 2), "formats": ("f32", "bf16")}
        self.addCleanup(setattr, race, "PEERS", race.PEERS)
        race.PEERS = {"zentorch": race.PEERS["zentorch"]}
        out = Path(tempfile.mkdtemp(dir=FOLDER.name), "cells.jsonl")
        out.write_text('{"selection": "s"}\n')
        raced(out, minutes=1e-9, **grid)
        self.assertFalse(dispatch_results.read(out)["complete"])
        self.assertEqual(dispatch_results.read(out)["cells"], [])
        raced(out, minutes=5, **grid)
        results = dispatch_results.read(out)
        self.assertTrue(results["complete"])
        order = [(c["format"], c["threads"], c["tokens"], c["load"]) for c in results["cells"] if c["strategy"] == "zentorch"]
        self.assertEqual(len(set(order)), 24)
        self.assertEqual(order[:5], [("bf16", 1, 1, "uniform"), ("bf16", 1, 16, "uniform"), ("f32", 1, 1, "uniform"),
                                     ("f32", 1, 16, "uniform"), ("bf16", 2, 1, "uniform")])  # fmt: skip
        self.assertEqual({o[2:] for o in order[-12:]}, {(2, "uniform"), (2, "zipf"), (16, "zipf")})

    def test_rounds_that_a_part_of_the_time_allows(self):
        _, held = raced(formats=(), rounds=9, seconds=0.1)
        held.problem = {"inputs": [{"tokens": 1, "load": "zipf", "count": 1, "flops": [1e9], "weights": [1e6]}]}

        class Own:
            def ask(self, do):
                return {"peak": 1e9, "dram": 1e9}

        racing = {"hmoe": (Own(), {"bytes_per_weight": 2}), "slow": None}
        held.pace.slowness["f32"] = 2.0  # 1 s of FLOPs: a round of two subjects is 4 s
        rounds = [held.rounds_of("f32", (1, "zipf"), racing, race.monotonic() + left, 2) for left in (19, 21, 60, 900)]
        self.assertEqual(rounds, [0, 3, 5, 9])
        self.assertEqual(held.rounds_of("f32", (1, "zipf"), racing, float("inf"), 2), 9)

    def test_a_layer_that_memory_does_not_suffice_for_is_named(self):
        results = dispatch_results.read(raced(shapes=("wide", "hmoe_0.4b"))[0])
        self.assertEqual(results["refused"], [{"refused": "wide", "reason": "wide needs 99 GB of memory"}])
        self.assertTrue(any(c["shape"] == "hmoe_0.4b" for c in results["cells"]))

    def test_who_waits_is_stopped(self):
        process = race.Process([sys.executable, "-c", STAND_IN, "serve", "hmoe"], {}, Path(FOLDER.name, "log"))
        try:
            process.start({min(os.sched_getaffinity(0))})
            for _ in range(2):  # after the start and after an answer
                _, state = os.waitpid(process.process.pid, os.WUNTRACED)
                self.assertTrue(os.WIFSTOPPED(state))
                self.assertEqual(process.ask(do="limits"), {"peak": 2e11, "dram": 1e10})
        finally:
            process.end()

    def test_who_ends_while_it_waits_is_given_up_and_the_race_goes_on(self):
        process = race.Process([sys.executable, "-c", STAND_IN, "serve", "hmoe"], {}, Path(FOLDER.name, "log"))
        process.start({min(os.sched_getaffinity(0))})
        process.process.kill()
        process.process.wait()
        with self.assertRaisesRegex(race.Failed, "its process has ended: a library's own words"):
            process.ask(do="limits")
        process.end()

    def test_groups_have_hmoe_each_and_fit_the_memory(self):
        everyone = ["hmoe", "a", "b", "c"]
        self.assertEqual(race.groups_of(everyone, 1.0, 10.0), [everyone])
        self.assertEqual(race.groups_of(everyone, 1.0, 3.5), [["hmoe", "a", "b"], ["hmoe", "c"]])
        self.assertEqual(race.groups_of(everyone, 9.0, 1.0), [["hmoe", "a"], ["hmoe", "b"], ["hmoe", "c"]])
        self.assertEqual(race.groups_of(["hmoe"], 1.0, 1.0), [["hmoe"]])


def cell(subject, tokens, ratio, form="bf16", difference=0.005, shape="hmoe_0.4b", spread=0.001, **more):
    return {
        "name": f"peers/{shape}/{form}/{subject}/tokens:{tokens}/uniform/threads:1", "shape": shape, "format": form,
        "strategy": subject, "tokens": tokens, "load": "uniform", "phase": "forward", "threads": 1, "drops": False,
        "seconds": 1e-3 * tokens * ratio, "q25": 0.99e-3 * tokens * ratio, "q75": 1.01e-3 * tokens * ratio, "runs": 9,
        "ratio": ratio, "ratio_q25": ratio * (1 - spread), "ratio_q75": ratio * (1 + spread), "difference": difference,
        "bytes_per_weight": 2, "copies": 3, "version": "1", "flops": 1e8, "bytes": 1e6, "peak": 2e11, "dram": 3e10,
        "efficiency": 0.8 / ratio,
    } | more  # fmt: skip


def synthetic():
    cells = [cell("hmoe", t, 1.0) for t in (1, 64, 256)]
    cells += [cell("zentorch", 1, 0.8), cell("zentorch", 64, 1.01), cell("zentorch", 256, 1.5)]
    cells += [cell("vllm", t, 2.0) for t in (1, 64, 256)] + [cell("kt_kernel", t, 0.5, difference=0.05) for t in (1, 64, 256)]
    failed = cell("ggml", 1, 1.0, error="it needs more")
    del failed["seconds"]
    run = {"run": "one CPU", "threads": 2, "compiler": "g++", "load_average": 0.1}
    described = {"described": "hmoe_0.4b", "d_model": 768, "widths": [864, 2208], "top_k": 2}
    return [{"selection": "s"}, run, described, *cells, failed, {"end": 10}]


def read(entries):
    path = Path(tempfile.mkdtemp(dir=FOLDER.name), "cells.jsonl")
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    return dispatch_results.read(path)


class Findings(unittest.TestCase):
    def test_the_lead_counts_won_near_and_lost_points_against_the_best_peer_of_equal_error(self):
        text = peers_findings.lead(read(synthetic()))
        self.assertIn("At 3 points", text)
        self.assertIn("it is the fastest at 1, as fast as the best of them to within 2.0 % or the noise at 1, and slower at 1.", text)
        self.assertIn("hmoe_0.4b, bf16, 1 token, uniform, 1 thread: zentorch takes 0.80 times as long.", text)

    def test_a_ratio_inside_the_noise_is_not_lost(self):
        noisy = [cell("hmoe", 1, 1.0), cell("vllm", 1, 0.9, spread=0.5)]
        self.assertIn("the noise at 1, and slower at 0.", peers_findings.lead(read(noisy)))

    def test_peers_unequal_widths_efficiency_and_who_is_missing(self):
        text = " ".join(peers_findings.findings(read(synthetic())))
        self.assertIn("zentorch takes 1.01 times as long as hmoe in the median of 3 points, 0.80 times at least", text)
        self.assertIn("it is the faster one at 1.", text)
        self.assertIn("kt_kernel: its errors are more than 2 times hmoe's at all 3 points.", text)
        self.assertIn("With unequal widths and 64 tokens or more the best peer takes 1.01 times as long or more", text)
        self.assertIn("bf16: 0.80 to 0.80 with up to 4 tokens", text)
        self.assertIn("Not measured at all: ggml", text)


class Page(unittest.TestCase):
    def test_every_section_is_there_and_what_is_lost_is_marked(self):
        text = peers_page.html(read(synthetic()), "the <command>")
        for name in ("findings", "ratios", "winners", "exactness", "efficiency", "times", "cells", "failed", "setup"):
            self.assertIn(f'<section id="{name}">', text)
        self.assertEqual(re.findall(r'<td class="n (\w*)">([\d.]+)</td>', text)[:3], [("lost", "0.80"), ("near", "1.01"), ("", "1.50")])
        self.assertEqual(len(re.findall(r'class="n coarse">0.50', text)), 3)
        winners = text[text.index('<section id="winners">') : text.index('<section id="exactness">')]
        self.assertEqual(re.findall(r">(hmoe|zentorch|kt_kernel|vllm)<small>", winners), ["zentorch", "hmoe", "hmoe"])
        self.assertIn("the &lt;command&gt;", text)
        self.assertIn("it needs more", text)

    def test_the_table_in_markdown_has_a_row_for_each_peer(self):
        lines = peers_findings.markdown(read(synthetic()), "the command").splitlines()
        self.assertEqual(lines[0], "Time of the peer ÷ that of hmoe on one CPU by tokens (`the command`).")
        self.assertEqual(lines[2], "| layer | format | load, threads | peer | 1 | 64 | 256 | error (hmoe's) | bytes per weight |")
        self.assertEqual(lines[4], "| hmoe_0.4b | bf16 | uniform, 1 | zentorch | 0.80 | 1.01 | 1.50 | 0.005 (0.005) | 2.00 |")

    def test_text_from_the_data_stays_text(self):
        entries = [*synthetic(), {"refused": EVIL, "reason": EVIL}, {"run": EVIL, "threads": 2, "compiler": EVIL}]
        entries += [cell(s, t, 1.0, form=EVIL, shape=EVIL, version=EVIL) for s in ("hmoe", EVIL) for t in (1, 64)]
        self.assertNotIn("<script", peers_page.html(read(entries), EVIL))

    def test_a_run_of_nothing_has_a_page(self):
        self.assertIn("no point at which a peer was measured", peers_page.html(read([{"selection": "s"}])))

    def test_the_command_writes_json_csv_and_the_page(self):
        out, _ = raced()
        files = [out.with_name(name) for name in ("a.json", "a.csv", "a.html", "a.md")]
        named = zip(("--json", "--csv", "--report", "--markdown"), map(str, files))
        arguments = [str(out), "--command", "c", *(word for pair in named for word in pair)]
        self.assertEqual(peers_report.main(arguments), 0)
        self.assertEqual(len(json.loads(files[0].read_text())["cells"]), 14)
        self.assertIn(",ratio,", files[1].read_text().splitlines()[0])
        self.assertTrue(files[2].read_text().startswith("<!doctype html>"))
        self.assertIn("| zentorch | 2.00 | 2.00 |", files[3].read_text())


if __name__ == "__main__":
    unittest.main()
