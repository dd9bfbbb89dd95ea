# SPDX-License-Identifier: MIT
"""hmoe._cuda where there is neither torch nor a GPU: that it loads, and what it knows without one."""

import struct

try:
    from hmoe import Error, _cuda
except ImportError:
    _cuda = None


def error_of(call):
    try:
        call()
    except Error as error:
        return str(error)
    raise AssertionError("no error")


def test_tables_and_sizes():
    experts = _cuda.Experts(8, [4, 0, 6], type="bfloat16")
    assert experts.sizes == (2 * 10 * 8, 10 * 8, 2 * 10, 3 * 8)
    table = experts.table  # offsets of input weights, output weights, input biases, and widths, at multiples of 256 bytes
    assert len(table) == 4 * 256
    assert struct.unpack_from("3Q", table, 0) == (0, 64, 64)
    assert struct.unpack_from("3Q", table, 256) == (0, 32, 32)
    assert struct.unpack_from("3Q", table, 512) == (0, 8, 8)
    assert struct.unpack_from("3I", table, 768) == (4, 0, 6)
    assert experts.hidden_values(5, 2) == 5 * 2 * 3 * 8  # the widest expert, rounded up to 16 bytes
    assert _cuda.Experts(8, [4, 0, 6], gated=False).hidden_values(5, 2) == 5 * 2 * 2 * 8
    assert 0 < experts.forward_bytes(5, 2, True) < experts.forward_bytes(5, 2, False) < experts.backward_bytes(5, 2)


def test_mistakes_are_sentences():
    assert 'no activation "tanh"' in error_of(lambda: _cuda.Experts(8, [4], function="tanh"))
    assert "experts of float64 on a GPU" in error_of(lambda: _cuda.Experts(8, [4], type="float64"))
    assert "experts of float16 on a GPU" in error_of(lambda: _cuda.Experts(8, [4], type="float16"))
    assert "there must be some" in error_of(lambda: _cuda.Experts(8, []))
    assert "joins a gate and up" in error_of(lambda: _cuda.Experts(8, [4], function="gpt_oss", gated=False))
    none = (0, 0, 0, 0)
    experts = _cuda.Experts(8, [4])
    # Where there is no driver the first call of CUDA fails; where there is one, the workspace is too small.
    words = error_of(lambda: experts.forward((0, 0, 0, 0, 0, False), none, (3, 2, 0, 0, 0), 0, (0, 0)))
    assert words.startswith("hmoe: ") and ("CUDA: " in words or "bytes of device workspace" in words), words


if _cuda is None:
    import pytest

    pytestmark = pytest.mark.skip(reason="this build of hmoe has no hmoe._cuda")

if __name__ == "__main__":
    for name, test in list(globals().items()):
        if name.startswith("test_"):
            test()
    print("hmoe._cuda: passed")
