# SPDX-License-Identifier: MIT
"""Passes and what else happens to a process: threads, the workers of a DataLoader, Ctrl-C."""

import os
import signal
import subprocess
import sys

import pytest
import torch

import hmoe.nn

D = 256


class Outputs(torch.utils.data.Dataset):
    """The outputs of a layer, computed where they are asked for."""

    def __init__(self):
        torch.manual_seed(0)
        self.moe = hmoe.nn.MoE(D, [160, 130, 96, 200], router="top_p", p=0.6)

    def __len__(self):
        return 5

    @torch.no_grad()
    def __getitem__(self, i):
        return self.moe(torch.randn(40, D, generator=torch.Generator().manual_seed(i)))


@pytest.mark.parametrize("way", ["fork", "spawn"])
def test_workers_of_a_data_loader(way):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        outputs = Outputs()
        expected = [outputs[i] for i in range(len(outputs))]  # so there are threads when workers are made
        loader = torch.utils.data.DataLoader(outputs, batch_size=None, num_workers=2, multiprocessing_context=way, timeout=60)
        for y, own in zip(loader, expected, strict=True):
            assert torch.equal(y, own)
    finally:
        torch.set_num_threads(before)


def program(text):
    return [sys.executable, "-B", "-c", "import os, signal, sys, torch, hmoe.nn\n" + text]


def test_passes_have_the_threads_of_torch():
    """OpenMP's team has torch.get_num_threads(), the caller's own among them: it grows to 3 and shrinks to 2. Torch itself
    starts none for so little work."""
    done = subprocess.run(program("""
moe, x, seen = hmoe.nn.MoE(256, [160, 130, 96, 200], router="top_p", p=0.6), torch.randn(40, 256), []
for threads in (1, 3, 2):
    torch.set_num_threads(threads)
    with torch.no_grad():
        before = len(os.listdir("/proc/self/task"))
        moe(x)
        seen.append(len(os.listdir("/proc/self/task")) - before)
print(seen)
"""), capture_output=True, text=True, timeout=120)  # fmt: skip
    assert done.stdout == "[0, 2, -1]\n", done.stdout + done.stderr


def test_ctrl_c():
    """Ends a step of training with KeyboardInterrupt; passes after it are right. Python drops one that comes while it frees an
    object, so it is sent until it is noticed."""
    running = subprocess.Popen(program("""
torch.set_num_threads(2)
moe, x = hmoe.nn.MoE(256, [160, 130, 96, 200], router="top_p", p=0.6), torch.randn(400, 256)
expected = moe(x)
try:
    while True:
        moe(x).sum().backward()
        print("step", flush=True)
except KeyboardInterrupt:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
sys.exit(0 if torch.equal(moe(x), expected) else 1)
"""), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
    try:
        assert running.stdout.readline() == "step\n", running.stderr.read()
        for _ in range(60):
            os.kill(running.pid, signal.SIGINT)
            try:
                _, errors = running.communicate(timeout=1)
            except subprocess.TimeoutExpired:
                continue
            assert running.returncode == 0, errors
            break
        else:
            pytest.fail("no SIGINT ended it")
    finally:
        running.kill()


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
