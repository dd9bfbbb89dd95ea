# SPDX-License-Identifier: MIT
"""hmoe beside transformers' own implementations of experts: tables of times and ratios in Markdown.

    python examples/pytorch/benchmarks/experts.py --out experts.jsonl               # everything: hours on two cores
    python examples/pytorch/benchmarks/experts.py --out experts.jsonl --shape olmoe --tokens 1 64 --minutes 5
    python examples/pytorch/benchmarks/experts.py --out experts.jsonl --report      # the tables of what is there
    python examples/pytorch/benchmarks/experts.py --out experts.jsonl --ratios      # ratios alone

What is measured is added to the file cell by cell; the same command goes on with it, and leaves out what is there. All ways of
a cell run in turn in one process, so that a busy machine slows all of them down, and the quickest time of each counts. Before
each, the last-level cache is filled with something else: otherwise those that read the same weights would help each other.
Shapes are those of models' experts: fewer of them, and then narrower ones, where weights would take more than --memory.
"""

import argparse
import copy
import datetime
import functools
import json
import math
import os
import pathlib
import platform
import subprocess
import sys
import time
import warnings

import torch
import transformers
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssExperts
from transformers.models.mixtral.modeling_mixtral import MixtralExperts

import hmoe
import hmoe.transformers
from cold_cache import empty_cache

#: d_model, width, experts, experts of a token
SHAPES = {
    "olmoe": (2048, 1024, 64, 8),
    "qwen3": (2048, 768, 128, 8),
    "mixtral": (4096, 14336, 8, 2),
    "gpt-oss": (2880, 2880, 32, 4),
    "deepseek-v2-lite": (2048, 1408, 64, 6),
}
TOKENS = (1, 4, 16, 64, 256, 1024, 4096)
TRAINED_TOKENS = (64, 512)
PREFILL, DECODED = 512, 24
COMPILED = ("eager", "grouped_mm")
KINDS = ("forward", "training", "model")
clock = time.perf_counter


class Config:
    """What the modules of experts read of a model's configuration."""

    def __init__(self, d, h, experts, choices):
        self.hidden_size, self.intermediate_size = d, h
        self.num_local_experts, self.num_experts_per_tok = experts, choices
        self.hidden_act, self._experts_implementation = "silu", "eager"
        self.swiglu_alpha, self.swiglu_limit = 1.702, 7.0


def scaled(shape, memory, experts):
    """(d, width, experts, choices) whose float32 weights fit."""
    d, h, most, choices = SHAPES[shape]
    fitting = int(memory * 2**30 / (3 * d * h * 4))
    experts = experts or max(min(most, fitting), min(most, 2 * choices))
    if experts > fitting:
        h = max(64, int(memory * 2**30 / (3 * d * 4 * experts)) // 64 * 64)
    return d, h, experts, choices


def build(shape, numbers, dtype):
    config = Config(*numbers)
    module = (GptOssExperts if shape == "gpt-oss" else MixtralExperts)(config).to(dtype)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.02)
    return module, config


def ways_of(module, dtype, tokens, choices, compiled, training):
    packed = copy.copy(module)  # on the same parameters
    packed._hmoe_weights = "f32" if dtype == torch.float32 else "bf16"

    def by(implementation, own=module, config=module.config):
        def run(x, ids, shares):
            config._experts_implementation = implementation
            return own(x, ids, shares)

        return run

    ways = {"eager": by("eager"), "grouped_mm": by("grouped_mm")}
    gathered = tokens * choices * sum(p[0].numel() for p in module.parameters()) * dtype.itemsize
    if gathered < 2**30:  # batched_mm copies the weights of every choice: it would take minutes
        ways["batched_mm"] = by("batched_mm")
    torch.compiler.reset()
    for implementation in compiled:
        own = copy.copy(module)  # so that each has a graph of its own
        own.config = copy.copy(module.config)
        ways[f"compiled {implementation}"] = by(implementation, torch.compile(own, dynamic=False), own.config)
    ways["hmoe"] = by("hmoe")
    if not training:
        ways["hmoe packed"] = by("hmoe", packed)
    return ways


def quickest(steps, seconds):
    """The least time of each step, in seconds, all in turn; a step may tell its own time. Those that fail are left out, with
    the reason on stderr. `seconds` for each, with what lies between them."""
    best = dict.fromkeys(steps, math.inf)
    for name in list(steps):
        try:
            steps[name]()
        except Exception as error:  # a way that cannot run here is left out, and said
            print(f"{name}: {type(error).__name__}: {str(error).splitlines()[0][:200]}", file=sys.stderr)
            del steps[name], best[name]
    end, rounds = time.perf_counter() + seconds * len(steps), 0
    while rounds < 2 or time.perf_counter() < end:
        rounds += 1
        for name, step in steps.items():
            empty_cache()
            begin = clock()
            told = step()
            best[name] = min(best[name], clock() - begin if told is None else told)
    return best


def measure_experts(cell, numbers, options, built):
    training, dtype = cell["kind"] == "training", getattr(torch, cell["type"])
    if built.get("key") != (cell["shape"], cell["type"]):
        built.clear()
        built["key"], built["module"] = (cell["shape"], cell["type"]), build(cell["shape"], numbers, dtype)
    module, config = built["module"]
    module.requires_grad_(training)
    tokens, choices = cell["tokens"], config.num_experts_per_tok
    x = torch.randn(tokens, config.hidden_size).to(dtype).requires_grad_(training)
    ids = torch.stack([torch.randperm(config.num_local_experts)[:choices] for _ in range(tokens)])
    shares = torch.rand(ids.shape).to(dtype).requires_grad_(training)

    def step_of(run):
        def step():
            with torch.set_grad_enabled(training):
                y = run(x, ids, shares)
                if training:
                    y.backward(y.detach())
                    module.zero_grad(set_to_none=True)
                    x.grad = shares.grad = None

        return step

    ways = ways_of(module, dtype, tokens, choices, options.compiled, training)
    best = quickest({name: step_of(run) for name, run in ways.items()}, options.seconds)
    hmoe.transformers.release(module)
    return best


def measure_model(cell, options):
    """Tokens a second of a small random Qwen3-MoE: a prompt, and one token after the other behind it."""
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    config = Qwen3MoeConfig(hidden_size=1024, moe_intermediate_size=384, num_experts=32, num_experts_per_tok=8,
                            num_hidden_layers=4, num_attention_heads=16, num_key_value_heads=4, head_dim=64, vocab_size=8192,
                            decoder_sparse_step=1, tie_word_embeddings=True)  # fmt: skip
    torch.manual_seed(0)
    model = Qwen3MoeForCausalLM(config).to(getattr(torch, cell["type"])).eval().requires_grad_(False)
    packed = copy.deepcopy(model)
    hmoe.transformers.configure(packed, weights="f32" if cell["type"] == "float32" else "bf16")
    prompt = torch.randint(0, config.vocab_size, (1, PREFILL))

    @torch.no_grad()
    def prefill(own, implementation):
        own.set_experts_implementation(implementation)
        own(prompt, use_cache=True)

    @torch.no_grad()
    def decode(own, implementation):
        own.set_experts_implementation(implementation)
        cache, token = own(prompt, use_cache=True).past_key_values, prompt[:, :1]
        begin = clock()
        for _ in range(DECODED):
            out = own(token, past_key_values=cache, use_cache=True)
            token = out.logits[:, -1:].argmax(-1)
        return clock() - begin

    phase = prefill if cell["phase"] == "prefill" else decode
    # Without batched_mm, which copies the weights of every choice: minutes for a prompt.
    steps = {name: functools.partial(phase, model, name) for name in ("eager", "grouped_mm", "hmoe")}
    steps["hmoe packed"] = functools.partial(phase, packed, "hmoe")
    return quickest(steps, options.seconds)


def measure_kt(cell, numbers, options, known):
    """kt-kernel for a cell, in a process of its own; nothing where it does not load or has no such experts."""
    if options.kt is None or options.cpu_time or cell["kind"] != "forward" or cell["type"] != "bfloat16" or cell["shape"] == "gpt-oss":
        return {}
    key = (numbers, cell["threads"])
    if key not in known:
        program = pathlib.Path(__file__).with_name("kt_kernel_time.py")
        done = subprocess.run([sys.executable, program, options.kt, *map(str, numbers), str(cell["threads"]),
                               str(options.seconds), *map(str, options.tokens)], capture_output=True, text=True)  # fmt: skip
        found = [line for line in done.stdout.splitlines() if line.startswith("{")]
        known[key] = json.loads(found[-1])["seconds"] if found else {}
        if not found:
            print(f"kt-kernel: {(done.stderr.strip().splitlines() or ['ended without a word'])[-1][:200]}", file=sys.stderr)
    seconds = known[key].get(str(cell["tokens"]))
    return {} if seconds is None else {"kt-kernel": seconds}


def cells_of(options):
    measured = {"time": "CPU" if options.cpu_time else "wall-clock", "seconds_each": options.seconds}
    for kind in options.kind:
        if kind == "model":
            for name in options.type:
                for threads in options.threads:
                    for phase in ("prefill", "decode"):
                        yield {"kind": kind, "shape": "qwen3 small", "type": name, "threads": threads, "phase": phase} | measured
            continue
        for shape in options.shape:
            for name in options.type:
                for threads in options.threads:
                    for tokens in options.tokens if kind == "forward" else options.trained_tokens:
                        cell = {"kind": kind, "shape": shape, "type": name, "threads": threads, "tokens": tokens}
                        yield cell | measured | {"memory": options.memory, "experts": options.experts}


def cpu_name():
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


THEIRS = ("eager", "batched_mm", "grouped_mm", *(f"compiled {way}" for way in COMPILED))
#: Name → (ways of which the quickest counts, what its time is divided by).
RATIOS = {"transformers ÷ hmoe": (THEIRS, "hmoe"), "transformers ÷ packed": (THEIRS, "hmoe packed"),
          "kt-kernel ÷ packed": (("kt-kernel",), "hmoe packed")}  # fmt: skip


def ratio(seconds, others, own):
    """Time of the quickest of some ways ÷ that of another; None where one of them is missing."""
    best = min((seconds[way] for way in others if way in seconds), default=None)
    return None if best is None or own not in seconds else best / seconds[own]


def print_table(head, words, lines):
    print(f"| {' | '.join(head)} |\n|{'---|' * words}{'---:|' * (len(head) - words)}")
    for line in lines:
        print(f"| {' | '.join(line)} |")


def report_machines(rows):
    machines = {json.dumps(row["machine"], sort_keys=True): row["machine"] for row in rows}
    for m in machines.values():
        print(f"{m['cpu']}, {m['cores']} cores, hmoe {m['hmoe']} with {m['instructions']}, torch {m['torch']}, transformers "
              f"{m['transformers']}, {m['day']}; times are {m['time']} ms, the quickest of each way.")  # fmt: skip
        for command in m["commands"]:
            print(f"`{command}`")


def report_ratios(rows):
    """Markdown tables of ratios alone, with a column for each number of tokens or phase."""
    for kind in KINDS:
        found = {}  # (experts, type, threads, ratio) → column → value
        for row in rows:
            if row["cell"]["kind"] == kind:
                cell = row["cell"]
                for name, of in RATIOS.items():
                    value = ratio(row["seconds"], *of)
                    if value is not None:
                        line = found.setdefault((row["name"], cell["type"], str(cell["threads"]), name), {})
                        line[cell.get("tokens", cell.get("phase"))] = f"{value:.2f}"
        if found:
            columns = list(dict.fromkeys(column for line in found.values() for column in line))
            print(f"\n**{kind}**\n")
            print_table(["experts", "type", "threads", "ratio", *map(str, columns)], 4,
                        [[*key, *(line.get(column, "") for column in columns)] for key, line in found.items()])  # fmt: skip


def report(rows):
    """Markdown tables of the results."""
    for kind in KINDS:
        some = [row for row in rows if row["cell"]["kind"] == kind]
        if not some:
            continue
        columns = [way for way in (*THEIRS, "kt-kernel", "hmoe", "hmoe packed") if any(way in row["seconds"] for row in some)]
        rate = kind == "model"
        ratios = {name: (others, own) for name, (others, own) in RATIOS.items() if own in columns and set(others) & set(columns)}
        lines = []
        for row in some:
            cell, seconds = row["cell"], row["seconds"]
            of = {"prefill": PREFILL, "decode": DECODED}.get(cell.get("phase"))
            times = [(f"{of / seconds[w]:.0f}" if rate else f"{1e3 * seconds[w]:.3g}") if w in seconds else "" for w in columns]
            values = [ratio(seconds, *each) for each in ratios.values()]
            lines.append([row["name"], cell["type"], str(cell["threads"]), str(cell.get("tokens", cell.get("phase"))), *times,
                          *("" if value is None else f"{value:.2f}" for value in values)])  # fmt: skip
        print(f"\n**{kind}**\n")
        print_table(["experts", "type", "threads", "tokens/s of" if rate else "tokens", *columns, *ratios], 3, lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, help="a file of results to go on with (default: none is kept)")
    parser.add_argument("--report", action="store_true", help="print the tables of the file and measure nothing")
    parser.add_argument("--ratios", action="store_true", help="print the tables of the file as ratios alone, and measure nothing")
    parser.add_argument("--kind", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--shape", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--tokens", nargs="+", type=int, default=TOKENS)
    parser.add_argument("--trained-tokens", nargs="+", type=int, default=TRAINED_TOKENS)
    parser.add_argument("--type", nargs="+", choices=["float32", "bfloat16"], default=["float32", "bfloat16"])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--experts", type=int, help="that many, in place of those that fit")
    parser.add_argument("--memory", type=float, default=1.0, help="GB of float32 weights at most (default: 1)")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each way of a cell (default: 1)")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no cell after that time")
    parser.add_argument("--cpu-time", action="store_true", help="on one thread, and the CPU's time in place of the clock's: for "
                        "machines that others use as well; without kt-kernel")
    parser.add_argument("--compiled", nargs="*", choices=COMPILED, default=COMPILED, help="which of transformers' forms to measure "
                        "under torch.compile, too; each takes some seconds in each cell")
    parser.add_argument("--kt", help="the folder that kt-kernel was unpacked to: pip install --no-deps --target FOLDER kt-kernel")
    options = parser.parse_args()
    if options.cpu_time:
        global clock
        clock, options.threads = time.process_time, [1]

    rows, only_report = [], options.report or options.ratios
    if options.out is not None and options.out.exists():
        whole, _, rest = options.out.read_text(encoding="utf-8").rpartition("\n")
        rows = [json.loads(line) for line in whole.splitlines()]
        if rest and not only_report:  # a run ended while it wrote this line
            options.out.write_text(whole + "\n" if whole else "", encoding="utf-8")
    if not only_report:
        warnings.simplefilter("ignore")  # of torch.compile, about transformers
        done = {json.dumps(row["cell"], sort_keys=True) for row in rows}
        machine = {"cpu": cpu_name(), "cores": os.cpu_count(), "torch": torch.__version__, "hmoe": hmoe.__version__,
                   "transformers": transformers.__version__, "instructions": hmoe.instructions(),
                   "time": "CPU" if options.cpu_time else "wall-clock",
                   "day": datetime.date.today().isoformat(), "commands": [" ".join(["experts.py", *sys.argv[1:]])]}  # fmt: skip
        begin, built, of_kt = time.perf_counter(), {}, {}
        for cell in cells_of(options):
            if json.dumps(cell, sort_keys=True) in done:
                continue
            if time.perf_counter() - begin > 60 * options.minutes:
                break
            torch.manual_seed(0)
            torch.set_num_threads(cell["threads"])
            if cell["kind"] == "model":
                name, seconds = "4 layers, 32 × 384, d 1024", measure_model(cell, options)
            else:
                numbers = scaled(cell["shape"], options.memory, options.experts)
                name = f"{cell['shape']}: {numbers[2]} × {numbers[1]}, d {numbers[0]}, top-{numbers[3]}"
                seconds = measure_experts(cell, numbers, options, built) | measure_kt(cell, numbers, options, of_kt)
            rows.append({"cell": cell, "name": name, "seconds": seconds, "machine": machine})
            print(f"{cell} {({way: round(1e3 * t, 3) for way, t in seconds.items()})}", file=sys.stderr, flush=True)
            if options.out is not None:
                with open(options.out, "a", encoding="utf-8") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
    report_machines(rows)
    (report_ratios if options.ratios else report)(rows)


if __name__ == "__main__":
    sys.exit(main())
