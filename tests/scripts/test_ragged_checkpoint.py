# SPDX-License-Identifier: MIT
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from paths import ROOT, SCRIPTS

if not all(importlib.util.find_spec(name) for name in ("numpy", "safetensors")):
    # The environment of the demo and the benchmarks has them, once one of them has run; 77 tells ctest: skipped.
    python = ROOT / "build" / "venv" / "bin" / "python"
    if not python.exists() or Path(sys.prefix) == python.parents[1]:
        print("skipped: numpy or safetensors is missing (scripts/requirements.txt)")
        sys.exit(77)
    os.execv(python, [str(python), "-B", *sys.argv])

import numpy  # noqa: E402
import ragged_checkpoint  # noqa: E402
from safetensors.numpy import load_file, save_file  # noqa: E402

# The library's own tests read and write the same file (tests/golden/files.cpp).
GOLDEN = ROOT / "tests" / "golden" / "files" / "ragged.safetensors"


class RaggedCheckpoint(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.path = Path(self.folder.name) / "copy.safetensors"

    def test_reads_what_the_library_writes(self):
        (layer,) = ragged_checkpoint.read(GOLDEN)
        self.assertEqual(layer["prefix"], "layers.0.")
        self.assertEqual([expert["width"] for expert in layer["experts"]], [3, 0, 1, 0, 0, 0, 0])
        self.assertEqual(layer["experts"][1]["kind"], "vector")
        self.assertEqual(list(layer["experts"][1]["tensors"]), ["down_bias"])
        self.assertEqual(layer["experts"][5]["tensors"], {})
        gate = layer["experts"][0]["tensors"]["gate"]
        numpy.testing.assert_array_equal(gate, numpy.arange(1, 13, dtype=numpy.float32).reshape(3, 4) / 16)
        self.assertEqual(layer["tensors"]["router.selection_bias"].shape, (1, 7))

    def test_writes_the_same_bytes(self):
        done = subprocess.run([sys.executable, "-B", SCRIPTS / "ragged_checkpoint.py", GOLDEN, self.path],
                              capture_output=True, text=True, check=True)  # fmt: skip
        self.assertEqual(self.path.read_bytes(), GOLDEN.read_bytes())
        self.assertIn("expert 2: glu.silu, width 1 F32 gate [1, 4]", done.stdout)

    def refuse(self, change, tensors=None):
        with ragged_checkpoint.safe_open(GOLDEN, framework="numpy") as file:
            manifest = json.loads(file.metadata()[ragged_checkpoint.KEY])
        change(manifest["layers"][0])
        arrays = load_file(GOLDEN) if tensors is None else tensors
        save_file(arrays, self.path, metadata={ragged_checkpoint.KEY: json.dumps(manifest)})
        with self.assertRaises(ValueError) as raised:
            ragged_checkpoint.read(self.path)
        return str(raised.exception)

    def test_refuses_what_disagrees(self):
        self.assertIn("layers.0.experts.0.more is missing", self.refuse(lambda layer: layer["experts"][0]["tensors"].append("more")))
        self.assertIn("not in the manifest: layers.0.experts.0.down", self.refuse(lambda layer: layer["experts"][0]["tensors"].pop()))
        self.assertIn("has the id 1", self.refuse(lambda layer: layer["experts"].pop(0)))
        with self.assertRaises(ValueError):
            experts = [{"kind": "x", "width": 1, "tensors": {"a": numpy.zeros((1, 1)), "b": numpy.zeros((1, 1), numpy.float16)}}]
            ragged_checkpoint.write(self.path, [{"prefix": "", "d_model": 1, "experts": experts, "tensors": {}}])


if __name__ == "__main__":
    unittest.main()
