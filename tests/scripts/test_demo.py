# SPDX-License-Identifier: MIT
import subprocess
import unittest

from paths import SCRIPTS


def demo(*arguments):
    return subprocess.run([SCRIPTS / "demo", *arguments], capture_output=True, text=True, timeout=60)


class Options(unittest.TestCase):
    """What the demo does before it installs or builds anything."""

    def test_help(self):
        done = demo("--help")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        for option in ("--full", "--smoke", "--text", "--threads", "--variant", "--prune", "--ranks"):
            self.assertIn(option, done.stdout)

    def test_wrong_options_stop_it_with_a_reason(self):
        for arguments, words in (
            (["--fast"], "unknown argument: --fast"),
            (["--full", "--smoke"], "exclude each other"),
            (["--threads", "many"], "positive number, not 'many'"),
            (["--threads", "0"], "positive number"),
            (["--threads", "99999999999999999999"], "number up to 4096, not '99999999999999999999'"),
            (["--threads", "4097"], "up to 4096"),
            (["--ranks", "3"], "--ranks needs 1, 2, 4 or 8, not '3'"),
            (["--ranks", "2", "--prune"], "--ranks and --prune exclude each other"),
            (["--text"], "--text needs a value"),
            (["--full", "--prune"], "--full and --prune exclude each other"),
            (["--prune", "--variant", "name=a"], "--variant and --prune exclude each other"),
            (["--full", "--variant"], "--variant needs a value"),
            (["--text", "/nowhere/text.txt"], "cannot read the text /nowhere/text.txt"),
        ):
            done = demo(*arguments)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(words, done.stderr)
            self.assertNotIn("[1/6]", done.stdout)


if __name__ == "__main__":
    unittest.main()
