#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The process of one peer in one format: loads it, and answers requests as benchmarks/peers.cpp does.

    serve.py MODULE SUBJECT FOLDER FORMAT THREADS DESCRIPTOR

MODULE is a file of benchmarks/competitors with make(subject, problem, format, threads). What that returns has
    version, bytes_per_weight, copies
    load(input)         one of problem.inputs(…) in the form that run takes; not timed
    feed(copy, loaded)  what a model would have done before the layer; not timed
    run(copy, loaded)   the layer: from tokens, expert ids and their weights to the sums over experts
    result(loaded)      what run made of it last, float32 [T×d]
"""

import importlib
import json
import os
import sys
import time
from pathlib import Path

sys.dont_write_bytecode = True
BENCHMARKS = Path(__file__).resolve().parents[1]


class Server:
    def __init__(self, problem, layer, threads):
        self.problem, self.layer, self.one_thread = problem, layer, threads == 1
        self.place, self.inputs, self.turns, self.last, self.touched = None, [], 0, 0.0, False

    def take(self, tokens, load):
        if self.place != (tokens, load):
            self.inputs = []
            self.inputs = [self.layer.load(entry) for entry in self.problem.inputs(tokens, load)]
            self.place, self.last = (tokens, load), 0.0
            self.warm_up(tokens)

    def warm_up(self, tokens):
        """Some pack weights when they first meet them: every expert of every copy is met before the clock starts."""
        many = tokens * self.problem.top_k >= 8 * self.problem.experts
        if many and self.touched:
            return
        for copy in range(self.layer.copies):
            for loaded in self.inputs[:1] if many else self.inputs:
                self.timed(copy, loaded)
        self.touched = self.touched or many

    def timed(self, copy, loaded):
        """Seconds that passed; with one thread, no more than seconds of the CPU, so that what others do does not count."""
        self.layer.feed(copy, loaded)
        used, start = time.process_time(), time.perf_counter()
        self.layer.run(copy, loaded)
        passed = time.perf_counter() - start
        self.last = min(passed, time.process_time() - used) if self.one_thread else passed
        return self.last

    def turn(self):
        number, self.turns = self.turns, self.turns + 1
        return self.timed(number % self.layer.copies, self.inputs[number % len(self.inputs)])

    def check(self):
        import numpy

        self.timed(0, self.inputs[0])
        wanted = self.problem.expected(*self.place)
        found = self.layer.result(self.inputs[0])
        difference = float(numpy.linalg.norm(found - wanted) / numpy.linalg.norm(wanted))
        return {"difference": difference if difference == difference else None}

    def run(self, seconds):
        if self.last < 0.05:
            self.turn()
        spent, passes = 0.0, 0
        while passes == 0 or spent < seconds:
            spent, passes = spent + self.turn(), passes + 1
        return {"seconds": spent / passes, "passes": passes}

    def answer(self, request):
        self.take(request["tokens"], request["load"])
        return self.check() if request["do"] == "check" else self.run(request["seconds"])


def reason_of(error):
    words = str(error).strip().splitlines()
    return f"{type(error).__name__}: {words[0]}" if words else type(error).__name__


def main():
    module, subject, folder, form, threads, descriptor = sys.argv[1:]
    sys.path.insert(0, str(BENCHMARKS))

    def say(reply):
        os.write(int(descriptor), (json.dumps(reply) + "\n").encode())

    try:
        from peers.problem import Problem

        problem = Problem(folder)
        layer = importlib.import_module(f"competitors.{module}").make(subject, problem, form, int(threads))
    except Exception as error:  # whatever a peer's library may throw: the report says why
        say({"failed": reason_of(error)})
        return
    server = Server(problem, layer, int(threads))
    say({"ready": True, "version": layer.version, "bytes_per_weight": layer.bytes_per_weight, "copies": layer.copies})
    for line in sys.stdin:
        try:
            say(server.answer(json.loads(line)))
        except Exception as error:
            say({"failed": reason_of(error)})


if __name__ == "__main__":
    main()
