# SPDX-License-Identifier: MIT
"""The compiled module without torch: arrays of NumPy against sums written out by hand."""

import os
import signal
import unittest

import numpy as np

import hmoe
from hmoe import _core


def silu(z):
    return z / (1 + np.exp(-z))


class Layer:
    """Experts of unequal widths, and what they should give."""

    def __init__(self, dtype=np.float64, gated=True, biased=False, interleaved=False, widths=(3, 1, 8, 5), d=6,
                 tokens=9):
        rng = np.random.default_rng(7)
        self.d, self.widths, self.gated = d, list(widths), gated
        lanes = 2 if gated else 1

        def draw(*shape):
            return rng.standard_normal(shape).astype(dtype)

        self.inputs = [draw(lanes, h, d) for h in widths]
        self.outputs = [draw(d, h) for h in widths]
        self.input_biases = [draw(lanes, h) if biased else np.zeros((lanes, h), dtype) for h in widths]
        self.output_biases = [draw(d) if biased else np.zeros(d, dtype) for h in widths]
        order = (1, 0, 2) if interleaved else (0, 1, 2)
        self.input = np.concatenate([w.transpose(order).reshape(-1, d) for w in self.inputs])
        self.output = np.concatenate([w.reshape(-1) for w in self.outputs])
        biases = (np.concatenate([b.reshape(-1) for b in self.input_biases]), np.stack(self.output_biases))
        self.bank = _core.Bank(d, self.widths, self.input, self.output, *(biases if biased else (None, None)),
                               gated=gated, interleaved=interleaved)
        choices = min(3, len(widths))
        self.x = draw(tokens, d)
        self.ids = np.stack([rng.permutation(len(widths))[:choices] for _ in range(tokens)]).astype(np.int64)
        self.weights = draw(tokens, choices)

    def expert(self, e, x):
        z = np.einsum("lhd,d->lh", self.inputs[e], x) + self.input_biases[e]
        return self.outputs[e] @ (silu(z[0]) * z[1] if self.gated else silu(z[0])) + self.output_biases[e]

    def expected(self, x=None, weights=None):
        x, weights = (self.x if x is None else x), (self.weights if weights is None else weights)
        y = np.zeros_like(x)
        for t in range(len(x)):
            for i, e in enumerate(self.ids[t]):
                if 0 <= e < len(self.widths):
                    y[t] += weights[t, i] * self.expert(e, x[t])
        return y

    def forward(self, threads=1):
        y = np.full_like(self.x, np.nan)
        _core.forward(self.bank, self.x, self.ids, self.weights, y, threads=threads)
        return y


class Core(unittest.TestCase):
    def test_values(self):
        for dtype, tolerance in ((np.float64, 1e-13), (np.float32, 1e-5)):
            for gated, biased, interleaved in ((True, False, False), (True, True, True), (False, True, False)):
                with self.subTest(dtype=dtype, gated=gated, biased=biased, interleaved=interleaved):
                    layer = Layer(dtype, gated, biased, interleaved)
                    np.testing.assert_allclose(layer.forward(), layer.expected(), tolerance, tolerance)

    def test_same_bits_on_any_number_of_threads(self):
        layer = Layer(np.float32, widths=(200, 70, 130, 300), d=90)
        one = layer.forward()
        for threads in (2, 3, 8, 300):
            np.testing.assert_array_equal(layer.forward(threads), one)

    def test_same_bits_among_any_number_of_tokens(self):
        for gated, biased, d in ((True, True, 90), (False, False, 64), (True, False, 7)):
            for tokens in (100, 140, 2000):  # experts have some rows, so many that weights are packed, several chunks
                with self.subTest(gated=gated, d=d, tokens=tokens):
                    layer = Layer(np.float32, gated, biased, widths=(200, 1, 130, 35), d=d, tokens=tokens)
                    all_rows = layer.forward(threads=16)  # for so many an expert's rows are several chunks
                    expected = layer.expected()
                    np.testing.assert_allclose(all_rows, expected, 1e-4, 1e-5 * np.abs(expected).max())
                    x, ids, weights = layer.x, layer.ids, layer.weights
                    for first, end in ((0, 1), (17, 19), (30, 95)):
                        layer.x, layer.ids, layer.weights = x[first:end], ids[first:end], weights[first:end]
                        np.testing.assert_array_equal(layer.forward(), all_rows[first:end])

    def test_ids_that_are_no_expert_are_skipped(self):
        layer = Layer()
        layer.ids[0] = (-1, 4, 2**62)
        layer.ids[1, 1] = 4
        y = layer.forward()
        np.testing.assert_array_equal(y[0], 0)
        np.testing.assert_allclose(y, layer.expected(), 1e-13, 1e-13)

    def test_an_expert_chosen_twice(self):
        layer = Layer()
        layer.ids[2] = (1, 3, 1)
        np.testing.assert_allclose(layer.forward(), layer.expected(), 1e-13, 1e-13)

    def test_no_tokens(self):
        layer = Layer()
        layer.x, layer.ids, layer.weights = layer.x[:0], layer.ids[:0], layer.weights[:0]
        self.assertEqual(layer.forward().shape, (0, 6))

    def test_gradients_against_finite_differences(self):
        layer = Layer(biased=True)
        layer.ids[3] = (2, 0, 2)
        layer.ids[4] = (1, -1, 0)
        kept = np.empty(layer.bank.saved_values(9, 3)), np.empty((27, 6))
        y, dx, d_weights = np.empty_like(layer.x), np.empty_like(layer.x), np.empty_like(layer.weights)
        _core.forward(layer.bank, layer.x, layer.ids, layer.weights, y, *kept)
        sums = [np.zeros_like(layer.input), np.zeros_like(layer.output), np.zeros(34), np.zeros((4, 6))]
        gradients = _core.Bank(6, layer.widths, *sums)
        dy = np.random.default_rng(8).standard_normal(y.shape)
        _core.backward(layer.bank, layer.x, layer.ids, layer.weights, dy, *kept, dx, d_weights, gradients)
        step = 1e-6
        for name, array, gradient in (("x", layer.x, dx), ("weights", layer.weights, d_weights),
                                      ("input", layer.input, sums[0]), ("output", layer.output, sums[1])):
            for place in np.ndindex(array.shape):
                at = array[place]
                array[place] = at + step
                above = layer.forward()
                array[place] = at - step
                below = layer.forward()
                array[place] = at
                expected = np.sum(dy * (above - below)) / (2 * step)
                self.assertAlmostEqual(gradient[place], expected, delta=1e-7 * max(1, abs(expected)),
                                       msg=f"{name} {place}")

    def test_experts_of_width_0_have_weights_with_gradients(self):
        layer = Layer(np.float32, biased=True, widths=(0, 0))
        kept = np.empty(layer.bank.saved_values(9, 2), np.float32), np.empty((18, 6), np.float32)
        y, dx, d_weights = np.empty_like(layer.x), np.empty_like(layer.x), np.empty_like(layer.weights)
        _core.forward(layer.bank, layer.x, layer.ids, layer.weights, y, *kept)
        np.testing.assert_allclose(y, layer.expected(), 1e-5, 1e-5)
        dy = np.random.default_rng(8).standard_normal(y.shape).astype(np.float32)
        arguments = layer.bank, layer.x, layer.ids, layer.weights, dy, *kept, dx, d_weights
        _core.backward(*arguments)
        np.testing.assert_allclose(d_weights, np.einsum("td,tid->ti", dy, np.stack(layer.output_biases)[layer.ids]), 1e-5, 1e-5)
        np.testing.assert_array_equal(dx, 0)
        sums = [np.zeros_like(a) for a in (layer.input, layer.output, np.zeros(0, np.float32), np.zeros((2, 6), np.float32))]
        sums[3].flags.writeable = False
        with self.assertRaisesRegex(hmoe.Error, "a bank on arrays that are read-only"):
            _core.backward(*arguments, _core.Bank(6, layer.widths, *sums))

    def test_mistakes_are_sentences(self):
        layer = Layer()
        y = layer.x.copy()
        arguments = dict(bank=layer.bank, x=layer.x, ids=layer.ids, weights=layer.weights, y=y)
        for change, text in (
            (dict(x=layer.x[:, :5].copy()), r"x has the shape \[9, 5\], needed is \[9, 6\]"),
            (dict(x=layer.x[:, ::-1]), r"x of shape \[9, 6\] does not lie in memory row by row"),
            (dict(x=layer.x.astype(np.float32)), "x is of float32, needed is float64"),
            (dict(ids=layer.ids.astype(np.int32)), "ids are of another type than int64"),
            (dict(weights=layer.weights[:, :2].copy()), r"weights has the shape \[9, 2\], needed is \[9, 3\]"),
            (dict(threads=0), "a pass on 0 threads: at least 1 is needed"),
            (dict(y=layer.x), r"y and x of shapes \[9, 6\] and \[9, 6\] share memory"),
        ):
            with self.subTest(text), self.assertRaisesRegex(hmoe.Error, text):
                _core.forward(**{**arguments, **change})
        np.testing.assert_array_equal(y, layer.x)
        with self.assertRaisesRegex(hmoe.Error, 'there is no activation "tanh" for experts; known are silu, '):
            _core.Bank(6, layer.widths, layer.input, layer.output, function="tanh")
        with self.assertRaisesRegex(hmoe.Error, r"input weights of shape \[34, 6\] has 204 values, needed are 192"):
            _core.Bank(6, [3, 1, 8, 4], layer.input, layer.output)
        self.assertIsInstance(hmoe.Error("x"), ValueError)

    def test_a_child_after_fork_computes(self):
        layer = Layer(np.float32, widths=(200, 70), d=90)
        expected = layer.forward(threads=2)
        child = os.fork()
        if child == 0:
            signal.alarm(60)
            os._exit(0 if np.array_equal(layer.forward(threads=2), expected) else 1)
        self.assertEqual(os.waitpid(child, 0)[1], 0)

    def test_instructions(self):
        self.assertIn(hmoe.instructions(), hmoe.built_for())


if __name__ == "__main__":
    unittest.main()
