# SPDX-License-Identifier: MIT
import os
import stat
import tempfile
import unittest
from pathlib import Path

from paths import SCRIPTS  # noqa: F401  (makes the next import find the module)
from whole_file import write_text, writing


class WholeFile(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.file = self.folder / "report.html"

    def names(self):
        return sorted(path.name for path in self.folder.iterdir())

    def test_two_writers_do_not_mix_and_a_failed_one_takes_nothing_with_it(self):
        with writing(self.file) as first, writing(self.file) as second:
            self.assertNotEqual(first, second)
            self.assertEqual(first.suffix, ".html")
            first.write_text("first")
            second.write_text("second")
            with self.assertRaises(KeyboardInterrupt), writing(self.file) as third:
                third.write_text("third")
                raise KeyboardInterrupt
            self.assertFalse(self.file.exists())
        self.assertEqual(self.file.read_text(), "first")  # the outer block ends last
        self.assertEqual(self.names(), ["report.html"])

    def test_the_old_file_stays_until_the_new_one_is_complete_and_keeps_its_permissions(self):
        self.file.write_text("older")
        self.file.chmod(0o640)
        with writing(self.file) as partial:
            partial.write_text("newer")
            self.assertEqual(self.file.read_text(), "older")
        self.assertEqual(self.file.read_text(), "newer")
        self.assertEqual(stat.S_IMODE(self.file.stat().st_mode), 0o640)
        usual = self.folder / "usual"
        usual.write_text("")
        write_text(self.folder / "new", "é")
        self.assertEqual((self.folder / "new").stat().st_mode, usual.stat().st_mode)
        self.assertEqual((self.folder / "new").read_bytes(), b"\xc3\xa9")

    def test_links_are_followed_and_what_is_no_plain_file_is_refused(self):
        (self.folder / "below").mkdir()
        (self.folder / "link").symlink_to("below/target")
        write_text(self.folder / "link", "text")
        self.assertTrue((self.folder / "link").is_symlink())
        self.assertEqual((self.folder / "below" / "target").read_text(), "text")
        os.mkfifo(self.folder / "fifo")
        for name, words in (("below", "it is a folder"), ("fifo", "no plain file")):
            with self.assertRaisesRegex(OSError, words):
                write_text(self.folder / name, "text")
        self.assertEqual(self.names(), ["below", "fifo", "link"])


if __name__ == "__main__":
    unittest.main()
