#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Hold the race of hmoe and its peers: one process for each, which take turns.

Writes JSON lines of the kind that benchmarks/dispatch writes, a cell for each
    peers/SHAPE/FORMAT/SUBJECT/tokens:T/LOAD/threads:N
with the subject as its strategy, and goes on where the file ends. A turn is some passes on one point; subjects follow one
another, so a round sees one state of the machine, and `ratio` is the median over rounds of a subject's time ÷ hmoe's.
Who has no turn is stopped, so that it computes nothing. Where memory does not suffice for all, peers race in groups, hmoe
in each of them.

With --minutes layers share the time in equal parts, and what one leaves goes to those that follow; coarse points come first. A
point gets as many rounds as the time of its layer allows, LEAST_ROUNDS at least. What had no time is left to the next run.
"""

import argparse
import contextlib
import json
import math
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median, quantiles
from time import monotonic

sys.dont_write_bytecode = True
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from peers.registry import PEERS  # noqa: E402

OURS = "hmoe"
FORMATS = ("f32", "bf16", "q8", "q8_channel", "q8_row", "q4", "q4_row", "mxfp4")
TOKENS = (1, 2, 4, 8, 16, 32, 64, 256, 1024, 4096)
LOADS = ("uniform", "zipf")
SHAPES = ("hmoe_0.4b_equal", "hmoe_0.4b", "olmoe", "qwen3_30b_a3b", "gpt_oss_20b", "wide", "experts_512")
SMALL = "demo"  # for a test: only a filter that names it selects it
QUICK = {"shapes": SHAPES[:2], "formats": FORMATS, "tokens": (1, 16, 256, 1024), "loads": LOADS[:1]}
# What a result may differ by from hmoe's in float before it counts as wrong: formats with as many bits differ in scales.
MOST_DIFFERENCE = {"f32": 1e-4, "bf16": 2e-2, "q8": 5e-2, "q8_channel": 8e-2, "q8_row": 8e-2, "q4": 0.4, "q4_row": 0.4,
                   "mxfp4": 0.4}  # fmt: skip
# What a run with --minutes measures first: points, and in each of them formats with their number of threads.
COARSE = (((1, 16, 64, 256, 1024), LOADS[:1]), ((4, 4096), LOADS[:1]), ((1, 64, 1024), LOADS[1:]))
FIRST = (("bf16", 1), ("f32", 1), ("q8_channel", 1), ("q4", 1), ("q8", 1), ("bf16", 2), ("mxfp4", 1), ("q4", 2))
LEAST_ROUNDS, LEAST_PART = 3, 45  # rounds of a point; seconds of a layer, whose weights have to be made first
LOADING, ANSWERING = 900, 300  # seconds that a process has for its start, and for an answer


class Failed(Exception):
    """A subject cannot go on; the text says why."""


def quartiles(values):
    return quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3


def last_line(path):
    lines = [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return f": {lines[-1][:200]}" if lines else ""


class Process:
    """A subject in one format: replies come through a pipe of their own, since libraries write to standard output."""

    def __init__(self, command, environment, log):
        self.log = log
        mine, theirs = os.pipe()
        with open(log, "wb") as output:
            self.process = subprocess.Popen(
                [*map(str, command), str(theirs)], stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT,
                env={**os.environ, **environment}, pass_fds=(theirs,),
            )  # fmt: skip
        os.close(theirs)
        self.replies = os.fdopen(mine, "rb", buffering=0)
        self.pending = b""

    def start(self, cores):
        """What it says of itself, once it has loaded its weights; from then on it has these cores, where there are any."""
        said = self.reply(LOADING)
        self.stop()
        for thread in () if cores is None else os.listdir(f"/proc/{self.process.pid}/task"):
            os.sched_setaffinity(int(thread), cores)
        return said

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGSTOP)

    def reply(self, seconds):
        while b"\n" not in self.pending:
            if not select.select([self.replies], [], [], seconds)[0]:
                self.end()
                raise Failed(f"no answer within {seconds} seconds")
            part = self.replies.read(1 << 16)
            if not part:
                code = self.process.wait()
                raise Failed(f"its process ended with {signal.Signals(-code).name if code < 0 else code}{last_line(self.log)}")
            self.pending += part
        line, self.pending = self.pending.split(b"\n", 1)
        said = json.loads(line)
        if "failed" in said:
            raise Failed(said["failed"])
        return said

    def ask(self, **request):
        self.process.send_signal(signal.SIGCONT)
        try:
            self.process.stdin.write((json.dumps(request) + "\n").encode())
            self.process.stdin.flush()
            return self.reply(ANSWERING)
        except BrokenPipeError as error:
            raise Failed(f"its process has ended{last_line(self.log)}") from error
        finally:
            self.stop()

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        with contextlib.suppress(BrokenPipeError):  # a request that it did not live to read
            self.process.stdin.close()
        self.replies.close()


class Results:
    """The file: what stands there is not measured again."""

    def __init__(self, path):
        self.path, self.known, self.cells, self.measured = Path(path), set(), 0, 0
        text = self.path.read_text(encoding="utf-8", errors="replace") if self.path.exists() else ""
        for line in text.splitlines():
            try:
                self.known.add(json.loads(line)["name"])
            except (ValueError, KeyError, TypeError):
                continue
        if text and not text.endswith("\n"):  # an interrupted run left a part of a line
            self.write_text("\n")

    def write_text(self, text):
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(text)

    def write(self, entry):
        self.write_text(json.dumps(entry) + "\n")
        if "name" in entry:
            self.known.add(entry["name"])
            self.cells, self.measured = self.cells + 1, self.measured + ("seconds" in entry)


def name_of(shape, form, subject, tokens, load, threads):
    return f"peers/{shape}/{form}/{subject}/tokens:{tokens}/{load}/threads:{threads}"


def available_memory():
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return 1 << 62


# Bytes of memory that a process takes ÷ those of its weights, while it loads them: conversions and a packed copy.
ROOM = {"f32": 2.2, "bf16": 2.5}


def groups_of(subjects, bytes_of_one, room):
    """The peers in groups, hmoe first in each, that together fit into the memory; one peer at least in each."""
    together = max(1, int(room / bytes_of_one) - 1)
    peers = [s for s in subjects if s != OURS]
    return [[OURS, *peers[at : at + together]] for at in range(0, len(peers), together)] or [[OURS]]


def environment_of(peer, package, threads):
    """Settings that the peers' authors recommend; and, as hmoe has them, huge pages and memory that is not given back between
    two passes."""
    found = {
        "OMP_NUM_THREADS": str(threads), "OMP_DYNAMIC": "FALSE", "KMP_BLOCKTIME": "1", "THP_MEM_ALLOC_ENABLE": "1",
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=4294967296:glibc.malloc.trim_threshold=68719476736",
        "PYTHONPATH": str(package), "HMOE_PACKAGE": str(package),
    }  # fmt: skip
    libraries = sorted(Path("/usr/lib").glob("llvm-*/lib/libomp.so.5")) if peer.llvm_openmp else []
    return found | ({"LD_PRELOAD": str(libraries[-1])} if libraries else {})


class Pace:
    """What work took until now, to tell what the next will take."""

    def __init__(self):
        self.loading = 0.5e-9  # seconds for a byte of a process, while all of them load
        self.slowness = {}  # {format: seconds of a pass in the mean of subjects ÷ those that the limits allow}

    def load(self, seconds, subjects, size):
        self.loading = max(seconds / (subjects * size), 0.5 * self.loading)

    def to_load(self, subjects, size):
        return subjects * size * self.loading

    def round(self, form, bound, subjects, turn):
        """Seconds of a round."""
        return subjects * max(1.3 * turn, bound * self.slowness.get(form, 3.0))


class Race:
    def __init__(self, options):
        self.options = options
        self.pace = Pace()
        minutes = getattr(options, "minutes", None)
        self.end = math.inf if minutes is None else monotonic() + 60 * minutes
        self.results = Results(options.out)
        self.folder = Path(tempfile.mkdtemp(prefix="problem-", dir=options.packages))
        cores = sorted(os.sched_getaffinity(0))
        self.cores = {threads: set(cores[-threads:]) for threads in options.threads}

    def subjects(self, form):
        return [OURS, *(name for name, peer in PEERS.items() if form in peer.formats)]

    def wanted(self, shape, form, threads, tokens=None, loads=None):
        """{(tokens, load): subjects} of what is selected and not there yet."""
        found = {}
        for count in self.options.tokens if tokens is None else tokens:
            for load in self.options.loads if loads is None else loads:
                names = {s: name_of(shape, form, s, count, load, threads) for s in self.subjects(form)}
                chosen = [s for s, name in names.items() if self.options.filter.search(name)]
                if any(names[s] not in self.results.known for s in chosen):
                    found[count, load] = [OURS, *(s for s in chosen if s != OURS)]
        return found

    def levels(self):
        """(tokens, loads) in the order in which they are measured."""
        o = self.options
        coarse = COARSE if self.end < math.inf else ()
        return [*((tuple(t for t in o.tokens if t in ts), tuple(x for x in o.loads if x in ls)) for ts, ls in coarse),
                (o.tokens, o.loads)]  # fmt: skip

    def kinds(self, shape, tokens, loads):
        """(format, threads, points) of what is left to do."""
        pairs = [(f, n) for f in self.options.formats for n in self.options.threads]
        if self.end < math.inf:
            pairs.sort(key=lambda pair: FIRST.index(pair) if pair in FIRST else len(FIRST))
        found = [(form, threads, self.wanted(shape, form, threads, tokens, loads)) for form, threads in pairs]
        return [kind for kind in found if kind[2]]

    def run(self):
        try:
            for tokens, loads in self.levels():
                shapes = [shape for shape in self.options.shapes if self.kinds(shape, tokens, loads)]
                for number, shape in enumerate(shapes):
                    now = monotonic()
                    if now < self.end:
                        part = max((self.end - now) / (len(shapes) - number), min(LEAST_PART, self.end - now))
                        self.run_shape(shape, self.kinds(shape, tokens, loads), now + part)
            print(f"  {self.results.measured} of {self.results.cells} cells could be measured", flush=True)
            o = self.options
            left_out = any(self.kinds(shape, o.tokens, o.loads) for shape in o.shapes)  # what began too late to be measured
            if self.end == math.inf or not left_out:
                self.results.write({"end": len(self.results.known)})
            else:
                print("  the time is over; the same command goes on", flush=True)
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def run_shape(self, shape, kinds, until=math.inf):
        tokens = sorted({t for _, _, points in kinds for t, _ in points})
        loads = sorted({load for _, _, points in kinds for _, load in points})
        print(f"  {shape}", flush=True)
        command = [self.options.program, "export", self.folder, shape, ",".join(map(str, tokens)), ",".join(loads)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            reason = done.stderr.strip() or f"benchmarks/peers ended with {done.returncode}"
            print(f"    left out: {reason}", flush=True)
            self.results.write({"refused": shape, "reason": reason})
            return
        os.sync()  # else the disk is written to while the first ones race
        self.problem = json.loads((self.folder / "problem.json").read_text(encoding="utf-8"))
        self.results.write({"described": shape, **{k: self.problem[k] for k in ("d_model", "widths", "top_k")}})
        for form, threads, points in kinds:
            self.run_kind(shape, form, threads, points, until)

    def run_kind(self, shape, form, threads, points, until=math.inf):
        problem = self.problem
        weights = 3 * problem["d_model"] * len(problem["widths"]) * max(problem["widths"])
        width = {"f32": 4, "bf16": 2, "q4": 0.5625, "q4_row": 0.5625, "mxfp4": 0.53}.get(form, 1.0625)
        own = max(weights * width, problem["cold_bytes"]) * ROOM.get(form, 2.5) + 0.6e9
        subjects = list(dict.fromkeys(s for selected in points.values() for s in selected))
        for group in groups_of(subjects, own, 0.85 * available_memory()):
            start = monotonic()
            if start + self.pace.to_load(len(group), own) > until:
                continue
            racing = self.started(group, shape, form, threads, points)
            self.pace.load(monotonic() - start, len(group), own)
            try:
                for number, (point, selected) in enumerate(points.items() if OURS in racing else ()):
                    chosen = {s: racing[s] for s in racing if s in selected}
                    rounds = self.rounds_of(form, point, chosen, until, len(points) - number)
                    if rounds > 0:
                        self.run_point(shape, form, threads, *point, chosen, rounds)
            finally:
                for process, _ in racing.values():
                    process.end()

    def bound(self, tokens, load, limits, bytes_per_weight):
        """Seconds of a pass that the limits allow, of the mean input; its FLOPs, and the weights that it reads."""
        inputs = next(i for i in self.problem["inputs"] if (i["tokens"], i["load"]) == (tokens, load))
        flops, read = (sum(inputs[key]) / inputs["count"] for key in ("flops", "weights"))
        return max(flops / limits["peak"], read * bytes_per_weight / limits["dram"]), flops, read

    def rounds_of(self, form, point, racing, until, points):
        """How many rounds a point gets, the first of `points` that share the time that is left; 0: there is too little."""
        most = self.options.rounds
        left = until - monotonic()
        if left == math.inf:
            return most
        process, said = racing[OURS]
        try:
            bound, *_ = self.bound(*point, process.ask(do="limits"), said["bytes_per_weight"])
        except Failed:  # the point will tell
            return LEAST_ROUNDS
        each = self.pace.round(form, bound, len(racing), self.options.seconds)
        least = min(LEAST_ROUNDS, most)
        if (least + 2) * each > left:  # one to check, one to warm up
            return 0
        return min(most, max(least, int(left / points / each) - 2))

    def command(self, subject, form, threads):
        """(command, environment) of a subject's process."""
        if subject == OURS:
            return [self.options.program, "serve", self.folder, form, threads], {"OMP_NUM_THREADS": str(threads)}
        peer = PEERS[subject]
        package = self.options.packages / peer.package
        if not package.exists():
            failed = package.with_name(package.name + ".failed")
            raise Failed(failed.read_text(encoding="utf-8").strip() if failed.exists() else "its package was not unpacked")
        python = self.options.packages / "venv" / "bin" / "python"
        command = [python, HERE / "serve.py", peer.module, subject, self.folder, form, threads]
        return command, environment_of(peer, package, threads)

    def started(self, group, shape, form, threads, points):
        """{subject: (process, what it says of itself)} of those that load; the others get a cell with the reason."""
        processes, racing = {}, {}
        for subject in group:
            try:
                command, environment = self.command(subject, form, threads)
                processes[subject] = Process(command, environment, self.options.packages / f"{subject}.log")
            except (Failed, OSError) as reason:
                self.give_up(subject, shape, form, threads, points, reason)
        try:
            for subject, process in processes.items():
                try:
                    free = subject != OURS and PEERS[subject].binds_threads
                    racing[subject] = process, process.start(None if free else self.cores[threads])
                except Failed as reason:
                    process.end()
                    self.give_up(subject, shape, form, threads, points, reason)
        except BaseException:  # interrupted
            for process in processes.values():
                process.end()
            raise
        return racing

    def give_up(self, subject, shape, form, threads, points, reason):
        print(f"    {form}, {threads} threads: {subject} does not run: {reason}", flush=True)
        for (tokens, load), selected in points.items():
            if subject in selected:
                self.results.write(self.cell(shape, form, subject, tokens, load, threads) | {"error": str(reason)})

    def cell(self, shape, form, subject, tokens, load, threads):
        return {"name": name_of(shape, form, subject, tokens, load, threads), "shape": shape, "format": form,
                "strategy": subject, "tokens": tokens, "load": load, "phase": "forward", "threads": threads, "drops": False}  # fmt: skip

    def checked(self, process, form, tokens, load):
        difference = process.ask(do="check", tokens=tokens, load=load)["difference"]
        if difference is None or not difference <= MOST_DIFFERENCE[form]:
            words = "is not a number" if difference is None else f"differs from hmoe's in float by {difference:.2g}"
            raise Failed(f"its result {words}; allowed is {MOST_DIFFERENCE[form]:g}")
        return difference

    def run_point(self, shape, form, threads, tokens, load, racing, rounds):
        differences, times, failed = {}, {}, {}
        for subject, (process, _) in list(racing.items()):
            try:
                differences[subject] = self.checked(process, form, tokens, load)
                times[subject] = []
            except Failed as reason:
                failed[subject] = str(reason)
        limits = racing[OURS][0].ask(do="limits") if OURS in times else {}
        request = {"do": "run", "tokens": tokens, "load": load, "seconds": self.options.seconds}
        for turn in range(rounds):
            order = list(times)
            for subject in order[turn % len(order) :] + order[: turn % len(order)] if order else ():
                try:
                    times[subject].append(racing[subject][0].ask(**request)["seconds"])
                except Failed as reason:
                    failed[subject] = str(reason)
                    times.pop(subject)
        slowness = []
        for subject in racing:
            entry = self.cell(shape, form, subject, tokens, load, threads)
            if subject in failed or OURS not in times:
                self.results.write(entry | {"error": failed.get(subject, "hmoe's own process failed")})
                continue
            low, middle, high = quartiles(times[subject])
            ratios = quartiles([mine / ours for mine, ours in zip(times[subject], times[OURS])])
            said = racing[subject][1]
            bound, flops, read = self.bound(tokens, load, limits, said["bytes_per_weight"])
            slowness.append(middle / bound)
            self.results.write(entry | {
                "seconds": middle, "q25": low, "q75": high, "runs": len(times[subject]), "ratio": ratios[1],
                "ratio_q25": ratios[0], "ratio_q75": ratios[2], "difference": differences[subject],
                "bytes_per_weight": said["bytes_per_weight"], "copies": said["copies"], "version": said["version"],
                "flops": flops, "bytes": read * said["bytes_per_weight"], **limits, "efficiency": bound / middle,
            })  # fmt: skip
        if slowness:
            self.pace.slowness[form] = sum(slowness) / len(slowness)
        told = ", ".join(f"{s} {median(t) * 1e3:.3g}" for s, t in times.items())
        print(f"    {form}, {threads} threads, {load}, {tokens} tokens: {told} ms", flush=True)


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench peers", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--program", required=True, help="benchmarks/peers")
    parser.add_argument("--packages", type=Path, required=True, help="what scripts/lib/peer_packages.py unpacked")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--new", action="store_true", help="begin the file anew")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--filter", default="")
    parser.add_argument("--minutes", type=float, help="that the run may take, about")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float, help="of a turn")
    options = parser.parse_args()
    try:
        options.filter = re.compile(options.filter)
    except re.error as error:
        parser.error(f"--filter needs a regular expression: {error}")
    if options.minutes is not None and not options.minutes > 0:
        parser.error(f"--minutes needs a number above 0, not {options.minutes:g}")
    small = options.quick and not options.filter.pattern
    options.shapes, options.formats = (QUICK["shapes"], QUICK["formats"]) if small else (SHAPES, FORMATS)
    if SMALL in options.filter.pattern:
        options.shapes = (SMALL,)
    options.tokens, options.loads = (QUICK["tokens"], QUICK["loads"]) if small else (TOKENS, LOADS)
    cores = len(os.sched_getaffinity(0))
    options.threads = (1,) if small or cores == 1 else (1, cores)
    options.rounds = options.rounds or (5 if options.quick else 9)
    options.seconds = options.seconds or (0.05 if options.quick else 0.15)
    options.packages = options.packages.resolve()
    if options.new:
        options.out.unlink(missing_ok=True)
    cpu = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "unknown")
    race = Race(options)
    race.results.write({"run": cpu, "threads": cores, "compiler": "", "load_average": os.getloadavg()[0]})
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    race.run()


if __name__ == "__main__":
    main()
