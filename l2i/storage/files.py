"""Files that are whole or absent, archives that stay inside.

A file written here is first written under another name in the same folder, brought to disk, and
then renamed: whoever reads it, and whenever the power goes, it is the old file or the new one.
A disk that is full is a `StoreError` that names the place, and leaves nothing half-written.

Over 300 lines: small functions that rest on the same rename.
"""

from __future__ import annotations

import errno
import json
import lzma
import os
import secrets
import shutil
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from l2i.errors import DataError, StoreError

# No room: the disk, the user's quota, or the largest file the process may write.
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# Refused: the permissions, a file system mounted for reading, a file where a folder is to be or
# the other way round.
_REFUSED = {
    *(errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG),
}
# What Python's readers of archives raise where bytes make no sense to them.
_DAMAGE = (
    *(zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError),
    # In a zip: a method or version that is not known, a name that is no text, odd numbers.
    *(NotImplementedError, ValueError, OverflowError, struct.error),
)


def format_bytes(n: int) -> str:
    """A size as people read it, in powers of 1000.

    >>> format_bytes(352_800_128)
    '352.8 MB'
    >>> format_bytes(999)
    '999 B'
    """
    size = float(n)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.95 or unit == "GB":
            break
        size /= 1000
    return f"{n} B" if unit == "B" else f"{size:.1f} {unit}"


@contextmanager
def disk_errors(place: str | Path) -> Iterator[None]:
    """Turn a full disk, or a `place` that cannot be written, into a `StoreError` naming it."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StoreError(
                f"The disk is full: {place} could not be written ({error.strerror}). "
                "Make room and run the same command again."
            ) from error
        if error.errno in _REFUSED:
            raise StoreError(
                f"{place} cannot be written ({error.strerror}). Choose another place."
            ) from error
        if error.errno == errno.ENOENT:
            folder = existing(Path(place).absolute().parent)
            if not _takes_files(folder):
                raise StoreError(
                    f"{place} cannot be written: {folder} takes no files. Choose another place."
                ) from error
        raise


def _takes_files(folder: Path) -> bool:
    """Whether files can be made in a folder that is there; in ``/proc`` none can, and the error
    is that of a folder that is missing."""
    try:
        handle, name = tempfile.mkstemp(dir=folder)
    except FileNotFoundError:
        return False
    except OSError:
        return True  # It refuses for a reason that has an error of its own.
    os.close(handle)
    os.unlink(name)
    return True


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path in the folder of `path`, renamed to it when the block ends well.

    Parameters
    ----------
    path : path
        The file to be; its folder is made. A file that is there already is replaced.

    Yields
    ------
    Path
        With the suffix of `path` (writers choose a format by it). Nothing is there yet.

    Raises
    ------
    StoreError
        The disk is full or refuses. As with any other error, what was written is removed and
        the old file stays.
    """
    path = Path(path)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not by tempfile, whose files only their owner may read: the writer's umask decides.
        temporary = path.with_name(f".{path.stem[:40]}-{secrets.token_hex(4)}.tmp{path.suffix}")
        try:
            yield temporary
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        # A rename is on disk only once its folder is; not every file system can be asked.
        with suppress(OSError):
            handle = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def atomic_write_bytes(path: str | Path, data: bytes) -> None:
    """Write a whole file or none; see `atomic_path`."""
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(data)


def atomic_write_text(path: str | Path, text: str) -> None:
    """Write a whole file of UTF-8 text or none, line ends as given; see `atomic_path`."""
    atomic_write_bytes(path, text.encode("utf-8"))


def write_json(path: str | Path, value: Any) -> None:
    """Write a value as JSON that people read, or nothing; see `atomic_path`."""
    atomic_write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_csv(path: str | Path, rows: Any) -> None:
    """Write a data frame, or mappings, as CSV of six digits, or nothing; see `atomic_path`."""
    import pandas as pd

    atomic_write_text(path, pd.DataFrame(rows).to_csv(index=False, float_format="%.6g"))


def existing(path: Path) -> Path:
    """The path itself, or the nearest folder above it that there is."""
    return next(each for each in (path, *path.parents) if each.exists())


def disk_usage(path: str | Path) -> int:
    """Bytes of a file, or of all files below a folder; 0 where there is nothing.

    Sizes are as files say them, links are counted as links, and what vanishes meanwhile is
    not counted.
    """
    total = 0
    try:
        info = os.lstat(path)
    except OSError:
        return 0
    if not stat.S_ISDIR(info.st_mode):
        return info.st_size
    for folder, _, names in os.walk(path):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_size
    return total


def is_inside(name: str) -> bool:
    r"""Whether a relative file name stays within the folder it is joined to.

    >>> is_inside("audio/a.wav"), is_inside("../a.wav"), is_inside("/etc/passwd")
    (True, False, False)
    >>> is_inside("audio\\..\\..\\a.wav"), is_inside("C:a.wav"), is_inside("")
    (False, False, False)
    """
    windows = PureWindowsPath(name)
    return not (
        not name
        or "\0" in name
        or PurePosixPath(name).is_absolute()
        or windows.drive
        or windows.root
        or ".." in windows.parts
    )


def safe_extract(archive: str | Path, target: str | Path) -> None:
    """Unpack a zip or tar (plain, gz, bz2, xz) archive of files and folders, and nothing else.

    The whole list of members is judged before the first is written. Permissions and owners are
    not taken over.

    Parameters
    ----------
    archive, target : path
        The archive, and the folder to unpack into (made where absent; files in it are replaced).

    Raises
    ------
    DataError
        It is no archive, is damaged, or has a member that would leave the folder, or is a link,
        a device or a pipe. (Of a plain tar that was cut between two members nobody can tell.)
    StoreError
        The disk is full.
    """
    archive, target = Path(archive), Path(target)
    try:
        with disk_errors(target):
            if zipfile.is_zipfile(archive):
                return _extract_zip(archive, target)
            if tarfile.is_tarfile(archive):
                return _extract_tar(archive, target)
    except _DAMAGE as error:
        raise DataError(f"The archive {archive} is damaged: {error}.") from error
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not archive.exists():
            raise DataError(f"There is no archive {archive}.") from None
        if type(error) is OSError or type(error).__name__ == "BadGzipFile":
            # gzip's and bz2's way to say that the bytes make no sense.
            raise DataError(f"The archive {archive} is damaged: {error}.") from error
        raise
    raise DataError(f"{archive} is neither a zip nor a tar archive.")


def _refuse(archive: Path, name: str, why: str) -> DataError:
    return DataError(f"The archive {archive} was not unpacked: its member {name!r} {why}.")


def _extract_zip(archive: Path, target: Path) -> None:
    with zipfile.ZipFile(archive) as file:
        members = file.infolist()
        for member in members:
            # orig_filename, because zipfile quietly mends some names that should be refused.
            for name in (member.orig_filename, member.filename):
                if not is_inside(name):
                    raise _refuse(archive, name, "would leave the folder")
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _refuse(archive, member.filename, "is a link or a device")
            if member.flag_bits & 1:
                raise _refuse(archive, member.filename, "is encrypted")
        files = {m.filename: partial(file.open, m) for m in members if not m.is_dir()}
        _write_all(archive, target, files, [m.filename for m in members if m.is_dir()])


def _extract_tar(archive: Path, target: Path) -> None:
    with tarfile.open(archive) as file:
        members = file.getmembers()
        # A tar says where it ends, and the rest is not read: but there is the checksum of it all.
        while file.fileobj is not None and file.fileobj.read(1 << 20):
            pass
        for member in members:
            if not is_inside(member.name):
                raise _refuse(archive, member.name, "would leave the folder")
            if not (member.isfile() or member.isdir()):
                raise _refuse(archive, member.name, "is a link or a device")
        files = {m.name: partial(file.extractfile, m) for m in members if m.isfile()}
        _write_all(archive, target, files, [m.name for m in members if m.isdir()])


def _write_all(
    archive: Path, target: Path, files: Mapping[str, Callable[[], Any]], folders: Sequence[str]
) -> None:
    """Write the files of an archive, by name and what opens them, and make its folders."""
    paths = {name: PurePosixPath(name) for name in files}
    inner = {parent for path in paths.values() for parent in path.parents}
    inner.update(map(PurePosixPath, folders))
    for name in files:
        if paths[name] in inner:
            raise _refuse(archive, name, "is a file and a folder at once")
    for folder in (".", *folders):
        (target / folder).mkdir(parents=True, exist_ok=True)
    for name, opened in files.items():
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with opened() as source:
            # A link that lies there from before would lead the write elsewhere.
            if path.is_symlink():
                path.unlink()
            try:
                with open(path, "wb") as file:
                    shutil.copyfileobj(source, file, 1 << 20)
            except BaseException:
                path.unlink(missing_ok=True)
                raise
