# SPDX-License-Identifier: MIT
import contextlib
import gzip
import io
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

from paths import load_script

corpus = load_script("corpus")

HEADER = b"00-database-info\n   Converted from somewhere.\n"
LARGE = rb"""Large \Large\, adv.
   Freely; licentiously. [Obs.] --Chaucer.
   [1913 Webster]

         We have yet large  day.        --Milton. [1913
   Webster +PJC]
"""
CAFE = "Café \\Ca`f['e]\"\\, n.\n   A coffeehouse.\n   [WordNet 1.5]\n".encode()


def base64_number(value):
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    written = ""
    while True:
        written = digits[value % 64] + written
        value //= 64
        if not value:
            return written


def book():
    """(dictionary, index): a header, two entries, one of them under two headwords, not in the index's order."""
    dictionary = HEADER + LARGE + CAFE
    places = [("cafe", len(HEADER + LARGE), CAFE), ("large", len(HEADER), LARGE), ("larger", len(HEADER), LARGE)]
    lines = [f"00-database-info\tA\t{base64_number(len(HEADER))}"]
    lines += [f"{word}\t{base64_number(offset)}\t{base64_number(len(entry))}" for word, offset, entry in places]
    return dictionary, "\n".join(lines).encode()


CLEAN = (
    "Large \\Large\\, adv. Freely; licentiously. [Obs.] --Chaucer.\n"
    "We have yet large day. --Milton.\n\n"
    "Cafe \\Ca`f['e]\"\\, n. A coffeehouse.\n\n"
)


class Cleaning(unittest.TestCase):
    def test_base_64_numbers(self):
        self.assertEqual(corpus.number(b"A"), 0)
        self.assertEqual(corpus.number(b"BAA"), 4096)
        for value in (1, 63, 64, 39_952_096):
            self.assertEqual(corpus.number(base64_number(value).encode()), value)
        with self.assertRaisesRegex(corpus.CorpusError, "not base 64"):
            corpus.number(b"A=")

    def test_tags_go_notes_stay_lines_join_ascii_remains(self):
        self.assertEqual(corpus.clean(*book()), CLEAN)

    def test_a_tag_in_the_middle_of_a_line_goes(self):
        self.assertEqual(
            corpus.clean_entry(b"a word [Webster 1913 Suppl.] and [U. S.] more"), "a word and [U. S.] more"
        )

    def test_an_index_beyond_the_file_is_an_error(self):
        with self.assertRaisesRegex(corpus.CorpusError, "points to byte 64 of a dictionary of 3 bytes"):
            list(corpus.entries(b"abc", b"word\tA\tBA"))
        with self.assertRaisesRegex(corpus.CorpusError, "without three fields"):
            list(corpus.entries(b"abc", b"word A BA"))


@unittest.skipUnless(shutil.which("dpkg-deb"), "dpkg-deb is needed")
class Package(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.output = self.folder / "text.txt"

    def deb(self, files):
        tree = self.folder / "tree"
        (tree / "DEBIAN").mkdir(parents=True)
        (tree / "DEBIAN/control").write_text(
            "Package: dict-gcide\nVersion: 1\nArchitecture: all\nMaintainer: Nobody <nobody@example.org>\n"
            "Description: test\n"
        )
        for name, content in files.items():
            path = tree / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        package = self.folder / "dict-gcide_1_all.deb"
        subprocess.run(["dpkg-deb", "--root-owner-group", "-b", tree, package], check=True, capture_output=True)
        return package

    def call(self, package, *options):
        out, err = io.StringIO(), io.StringIO()
        arguments = ["--deb", str(package), "--directory", str(self.folder), "--output", str(self.output), *options]
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = corpus.main(arguments)
        return status, out.getvalue(), err.getvalue()

    def dictd(self, packed=None):
        dictionary, index = book()
        folder = "usr/share/dictd/"
        return self.deb({folder + "g.dict.dz": packed or gzip.compress(dictionary), folder + "g.index": index})

    def test_package_to_text(self):
        package = self.dictd()
        status, out, err = self.call(package)
        self.assertEqual((status, err), (0, ""))
        self.assertIn("2 entries", out)
        self.assertEqual(self.output.read_text(), CLEAN)
        self.assertFalse((self.folder / "dict-gcide.unpacked").exists())

    def test_made_once_and_again_by_force(self):
        package = self.dictd()
        self.call(package)
        self.output.write_text("mine")
        self.assertIn("already there", self.call(package)[1])
        self.assertEqual(self.output.read_text(), "mine")
        self.assertEqual(self.call(package, "--force")[0], 0)
        self.assertEqual(self.output.read_text(), CLEAN)

    def check_error(self, package, words):
        status, _, err = self.call(package)
        self.assertEqual(status, 1)
        self.assertIn(words, err)
        self.assertFalse(self.output.exists())

    def test_a_damaged_dictionary(self):
        whole = gzip.compress(book()[0])
        self.check_error(self.dictd(whole[: len(whole) // 2]), "is damaged")

    def test_another_package(self):
        self.check_error(self.deb({"usr/share/doc/x": b"x"}), "is not a dictd dictionary")

    def test_no_package(self):
        (self.folder / "x.deb").write_bytes(b"this is no package")
        self.check_error(self.folder / "x.deb", "cannot unpack")
        self.check_error(self.folder / "missing.deb", "no such file")


class Repository(unittest.TestCase):
    def test_files_in_the_order_of_their_names(self):
        with tempfile.TemporaryDirectory() as name:
            root = Path(name)
            (root / "docs").mkdir()
            (root / "docs" / "b.md").write_text("second")
            (root / "docs" / "a.md").write_text("first é")
            (root / "docs" / "picture.svg").write_text("<svg/>")
            (root / "build").mkdir()
            (root / "build" / "a.md").write_text("not ours")
            self.assertEqual(corpus.repository_text(root), "first e\n\nsecond\n\n")

    def test_no_text_is_an_error(self):
        with tempfile.TemporaryDirectory() as name, self.assertRaisesRegex(corpus.CorpusError, "no text"):
            corpus.repository_text(Path(name))


if __name__ == "__main__":
    unittest.main()
