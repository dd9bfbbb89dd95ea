# SPDX-License-Identifier: MIT
"""What hmoe.nn and hmoe.prune call in the compiled module, without torch: memory of NumPy against sums by hand."""

import json
import os
import tempfile
import unittest

import numpy as np

import hmoe
import hmoe.widths
from hmoe import _core

D, WIDTHS, TOKENS = 5, [3, 0, 4], 7


def address(array):
    return array.ctypes.data if array is not None else 0


def silu(z):
    return z / (1 + np.exp(-z))


class Layer:
    """Three GLUs, one of width 0, and a router of top-p."""

    def __init__(self, p=0.7):
        rng = np.random.default_rng(3)
        self.x = rng.standard_normal((TOKENS, D))
        self.experts = [[rng.standard_normal(shape) for shape in ((h, D), (h, D), (D, h))] for h in WIDTHS]
        self.tensors = [address(tensor) for expert in self.experts for tensor in expert]
        self.bank = _core.TensorBank("glu.silu", "float64", D, WIDTHS, False, self.tensors)
        self.router = rng.standard_normal((3, D))
        self.p = p

    def route(self):
        logits, probabilities, weights = (np.full((TOKENS, 3), np.nan) for _ in range(3))
        ids = np.full((TOKENS, 3), 9, np.int64)
        policies = _core.RouterPolicies(D, 3, "softmax", "top_p", self.p, "renormalized")
        _core.run_router(policies, True, address(self.router), TOKENS, address(self.x), 0, address(logits),
                         address(probabilities), address(ids), address(weights), 1)
        return logits, probabilities, ids, weights

    def hidden(self, e):
        gate, up, _ = self.experts[e]
        return silu(self.x @ gate.T) * (self.x @ up.T)

    def run(self, ids, weights):
        """y, and what a recorded pass keeps."""
        y, saved, outputs = np.full_like(self.x, np.nan), np.zeros(TOKENS * 3 * sum(WIDTHS)), np.zeros((TOKENS * 3, D))
        _core.run_bank(self.bank, TOKENS, 3, address(ids), address(weights), address(self.x), address(y), address(saved),
                       address(outputs), True, 1)
        return y, saved, outputs


class Pieces(unittest.TestCase):
    def test_router_and_experts(self):
        layer = Layer()
        logits, probabilities, ids, weights = layer.route()
        z = layer.x @ layer.router.T
        p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        np.testing.assert_allclose(logits, z, rtol=1e-12)
        np.testing.assert_allclose(probabilities, p, rtol=1e-12)
        expected = np.zeros_like(layer.x)
        for t in range(TOKENS):
            chosen, total = [], 0.0
            for e in np.argsort(-p[t]):
                chosen.append(int(e))
                total += p[t, e]
                if total >= layer.p:
                    break
            chosen.sort()
            self.assertEqual(list(ids[t]), chosen + [-1] * (3 - len(chosen)))
            np.testing.assert_allclose(weights[t, : len(chosen)], p[t, chosen] / total, rtol=1e-12)
            for e in chosen:
                expected[t] += p[t, e] / total * (layer.experts[e][2] @ layer.hidden(e)[t])
        self.assertGreater(len({tuple(row) for row in ids}), 2)
        np.testing.assert_allclose(layer.run(ids, weights)[0], expected, rtol=1e-10, atol=1e-12)

    def test_auxiliary_loss(self):
        layer = Layer()
        logits, probabilities, ids, weights = layer.route()

        def loss(z):
            gradients = np.full_like(z, np.nan), np.full_like(z, np.nan)
            value = _core.auxiliary_loss("z", True, WIDTHS, TOKENS, 3, address(z), address(probabilities), address(ids),
                                         address(weights), 0, *map(address, gradients))
            return value, gradients[0]

        value, gradient = loss(logits)
        self.assertAlmostEqual(value, np.mean(np.log(np.exp(logits).sum(1)) ** 2), places=12)
        step = np.zeros_like(logits)
        step[2, 1] = 1e-5
        slope = (loss(logits + step)[0] - loss(logits - step)[0]) / 2e-5
        self.assertAlmostEqual(gradient[2, 1], slope, places=8)
        self.assertTrue((ids < 0).any())
        ids = np.where(ids < 0, 2**40, ids)  # no expert either
        self.assertEqual(loss(logits)[0], value)
        with self.assertRaisesRegex(hmoe.Error, "known are load_balance"):
            _core.auxiliary_loss("balance", True, WIDTHS, 0, 3, 0, 0, 0, 0, 0, 0, 0)

    def test_importance_and_budget(self):
        layer = Layer()
        ids = np.array([[0, 2, 2]] * TOKENS, np.int64)  # an expert twice: its weights are added
        weights = np.array([[0.25, 0.5, 0.25]] * TOKENS)
        _, saved, outputs = layer.run(ids, weights)
        sums = _core.make_calibration(layer.bank)
        sums.add(layer.bank, TOKENS, 3, address(ids), address(weights), address(saved), address(outputs))
        values = sums.importance(layer.bank, "squared_contribution")
        expected = [u**2 * (layer.hidden(e) ** 2).mean(0) * (layer.experts[e][2] ** 2).sum(0)
                    for e, u in ((0, 0.25), (1, 0.0), (2, 0.75))]  # fmt: skip
        for own, other in zip(values, expected):
            np.testing.assert_allclose(own, other, rtol=1e-10)
        self.assertEqual(sums.loads(), [1, 0, 1])
        ranked = sorted(((value, e, i) for e, of_expert in enumerate(values) for i, value in enumerate(of_expert)), reverse=True)
        kept = sums.within(layer.bank, values, 0.45, "parameters", 1, 0)  # 3 of 7 neurons
        self.assertEqual([(e, i) for e, of_expert in enumerate(kept) for i in of_expert],
                         sorted((e, i) for _, e, i in ranked[:3]))  # fmt: skip

    def test_files(self):
        layer = Layer()
        names = ("gate", "up", "down")

        def described(of, router, widths=WIDTHS):
            tensors = [(name, e, address(t), *t.shape) for e, own in enumerate(of) for name, t in zip(names, own)]
            return ("layers.0.", True, D, ["glu.silu"] * 3, widths, [*tensors, ("router.weight", 3, address(router), 3, D)])

        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "layer.safetensors")
            _core.save_layers(path, [described(layer.experts, layer.router)], "trained", "a test", "")
            (manifest,) = json.loads(_core.read_manifest(path))["layers"]
            self.assertEqual([e["kind"] for e in manifest["experts"]], ["glu.silu", "vector", "glu.silu"])
            self.assertEqual(manifest["tensors"], ["router.weight"])
            read, router = [[np.zeros_like(t) for t in own] for own in layer.experts], np.zeros_like(layer.router)
            _core.load_layer(path, "layers.0.", described(read, router))
            for own, other in zip(read, layer.experts):
                for a, b in zip(own, other):
                    np.testing.assert_array_equal(a, b)
            np.testing.assert_array_equal(router, layer.router)
            with self.assertRaisesRegex(hmoe.Error, "expert 0 has width 3, that of the layer to load 2"):
                _core.load_layer(path, "layers.0.", described(read, router, [2, 0, 4]))

    def test_widths_and_names(self):
        self.assertEqual(hmoe.widths.arithmetic(8, 12288), [864, 1056, 1248, 1440, 1632, 1824, 2016, 2208])
        self.assertEqual(_core.RouterPolicies(D, 8, "sigmoid", "top_k", 2, "raw").choices, 2)
        with self.assertRaisesRegex(hmoe.Error, "k must be 1 to 8"):
            _core.RouterPolicies(D, 8, "sigmoid", "top_k", 9, "raw")
        with self.assertRaisesRegex(hmoe.Error, "known are silu, gelu, gelu_tanh, relu, squared_relu and linear"):
            _core.check_experts("mlp.gpt_oss", D, WIDTHS)


if __name__ == "__main__":
    unittest.main()
