# SPDX-License-Identifier: MIT
"""Files that appear under their names only when they are complete."""

import os
import stat
import tempfile
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def writing(path):
    """A path to write to instead; when the block ends that file takes the place of `path`, and when it fails it goes.

    Each writer has a temporary file of its own, so of two writers the later one wins and no file is a mixture. A
    symbolic link is followed, and the permissions of a file that is replaced stay. What is no plain file is an OSError.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise OSError(f"cannot write {path}: it is {'a folder' if target.is_dir() else 'no plain file'}")
    if target.exists() and not os.access(target, os.W_OK):
        raise OSError(f"cannot write {path}: the file that is there may not be written to")
    target.parent.mkdir(parents=True, exist_ok=True)
    # The ending stays: some writers choose the format by it.
    handle, name = tempfile.mkstemp(prefix=target.stem[:150] + ".partial-", suffix=target.suffix, dir=target.parent)
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        if target.exists():
            mode = stat.S_IMODE(target.stat().st_mode)
        else:
            mask = os.umask(0)
            os.umask(mask)
            mode = 0o666 & ~mask
        partial.chmod(mode)
        with open(partial, "rb") as written:
            os.fsync(written.fileno())
        partial.replace(target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_text(path, text, encoding="utf-8"):
    with writing(path) as partial:
        partial.write_bytes(text.encode(encoding))
