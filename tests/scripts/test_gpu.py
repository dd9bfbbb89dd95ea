# SPDX-License-Identifier: MIT
"""scripts/gpu: the run on a machine ends without a GPU, in words, and the page says what the files say."""
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import paths

import gpu_report


def run(folder, environment):
    script = folder / "bundle/run"
    return subprocess.run([str(script), str(folder / "results")], env=environment, capture_output=True, text=True, check=False)


class Run(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        (self.folder / "bundle/tests").mkdir(parents=True)
        (self.folder / "tools").mkdir()
        shutil.copy(paths.SCRIPTS / "lib/gpu_run", self.folder / "bundle/run")
        self.environment = {**os.environ, "PATH": f"{self.folder}/tools:/usr/bin:/bin"}

    def program(self, name, text):
        path = self.folder / name
        path.write_text("#!/bin/sh\n" + text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def test_without_a_gpu(self):
        done = run(self.folder, self.environment)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("skipped everything: there is no GPU here", done.stdout)
        self.assertEqual(sorted(gpu_report.FILES), sorted(path.name for path in (self.folder / "results").iterdir()))
        with self.assertRaises(SystemExit) as raised:
            gpu_report.page(self.folder / "results")
        self.assertIn("there is no GPU here", str(raised.exception))

    def test_with_one(self):
        self.program("tools/nvidia-smi", "echo 'GPU 0: a device'\n")
        self.program("tools/python3", "exit 1\n")
        self.program("bundle/tests/plan", "echo fine\n")
        self.program("bundle/tests/layer", "echo 'TEST CASE: broken'; exit 3\n")
        row = {"shape": "s", "tokens": 256, "flops": 2e9, "forward_us": 100.0, "forward_graph_us": 90.0, "training_us": 400.0,
               "training_graph_us": 380.0, "tape_bytes": 3 << 20, "workspace_bytes": 1 << 20}  # fmt: skip
        first = json.dumps({"device": "Some GPU", "compute_capability": 90, "multiprocessors": 132})
        self.program("bundle/probe", f"echo '{first}'\necho '{json.dumps(row)}'\n")
        self.program("bundle/benchmark_cuda", "exit 0\n")
        done = run(self.folder, self.environment)
        self.assertEqual(done.returncode, 0, done.stderr)
        for line in ("ok test plan", "FAILED test layer (status 3)", "ok probe", "skipped torch: PyTorch with CUDA is not there",
                     "skipped ncu: it is not there"):  # fmt: skip
            self.assertIn(line, done.stdout)
        self.assertIn("TEST CASE: broken", (self.folder / "results/tests.txt").read_text())
        (self.folder / "results/torch.jsonl").write_text(
            '{"dense_tflops": 700}\n{"shape": "s", "tokens": 256, "grouped_us": 150.5}\n{"cut of'
        )
        times = {"hmoe": 50.0, "cublas_per_expert": 80.5, "cublas_grouped": 70.0}
        (self.folder / "results/benchmark.json").write_text(json.dumps({"benchmarks": [
            {"name": f"cuda/s/bf16/{subject}/tokens:16/uniform/manual_time", "real_time": time, "TFLOP/s": 200.0, "efficiency": 0.5}
            for subject, time in times.items()
        ] + [{"name": "cuda/s/bf16/training_step/tokens:16/uniform/manual_time", "error_occurred": True}]}))  # fmt: skip
        (self.folder / "results/ncu.csv").write_text(
            '==PROF== Connected\n"ID","Kernel Name","Section Name","Metric Name","Metric Unit","Metric Value"\n'
            '"0","void run_tiles<project_in<2>>(x, y)","S","Duration","us","12.5"\n'
            '"0","void run_tiles<project_in<2>>(x, y)","S","L2 Cache Throughput","%","61.2"\n'
            '"1","void hmoe::backends::cuda_detail::combine_rows<float, a::b>(c::d)","S","Registers Per Thread","register/thread","32"\n'
        )
        text = gpu_report.page(self.folder / "results")
        self.assertIn("| s, uniform | bf16 | 16 | 50 | 80.5 | 70 |  | 200 | 0.5 |", text)
        self.assertIn("| project_in |  | 12.5 us |  | 61.2 % |", text)
        self.assertIn("| combine_rows |  |  |  |  |  |  | 32 register/thread |", text)
        self.assertIn("# Measured on Some GPU\n", text)
        self.assertIn("| s | 256 | 100 | 90 | 20 | 150 |  | 400 | 380 | 15 |  |", text)
        self.assertIn("| s | 256 | 0.003 | 0.001 |", text)
        self.assertIn("reaches 700 TFLOP/s", text)
        self.assertIn("Failed: test layer (status 3).", text)


class Torch(unittest.TestCase):
    def test_both_ways_compute_the_same_layer(self):
        try:
            import torch  # noqa: F401
        except ImportError:
            self.skipTest("PyTorch is not there")
        script = str(paths.SCRIPTS / "lib/torch_baseline.py")
        done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stdout.count("grouped and looped differ by"), 3)


if __name__ == "__main__":
    unittest.main()
