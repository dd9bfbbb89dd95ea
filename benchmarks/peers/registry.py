# SPDX-License-Identifier: MIT
"""Who races: a further peer is a module of benchmarks/competitors (peers/serve.py says what it has) and a line here."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Peer:
    module: str  # of benchmarks/competitors
    package: str  # a folder that scripts/lib/peer_packages.py fills
    formats: tuple
    llvm_openmp: bool = False  # its authors recommend LLVM's OpenMP library, loaded first
    binds_threads: bool = False  # it chooses cores for its threads itself


# Formats are those of hmoe that do the same work: as many bits, and a scale for as many weights. Forms with one scale for all
# activations of a token (q8_row, q4_row) race with the finer ones of hmoe, too. A peer that has a format, but not on every CPU,
# says so when it is started.
PEERS = {
    "zentorch": Peer("zentorch_moe", "zentorch", ("f32", "bf16", "q8_channel", "q8_row", "q4", "q4_row"), llvm_openmp=True),
    "vllm": Peer("vllm_moe", "vllm", ("f32", "bf16", "q8_channel", "q4", "mxfp4")),
    "kt_kernel": Peer("kt_moe", "kt_kernel", ("bf16", "q8_channel", "q8_row", "q4", "mxfp4"), binds_threads=True),
    "ggml": Peer("ggml_moe", "ggml", ("f32", "bf16", "q8", "q4", "mxfp4")),
    "torch_eager": Peer("torch_moe", "zentorch", ("f32", "bf16")),
    "torch_grouped": Peer("torch_moe", "zentorch", ("f32", "bf16")),
}
