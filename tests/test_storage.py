"""`l2i.storage`: files whole or absent, locks that die with their holder, tame archives."""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import lzma
import os
import stat
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l2i.errors import DataError, StoreError
from l2i.storage import (
    atomic_path,
    atomic_write_bytes,
    atomic_write_text,
    disk_errors,
    disk_usage,
    file_lock,
    format_bytes,
    is_inside,
    safe_extract,
)

# --- sizes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (13_300_000_000, "13.3 GB"),
        (5_000_000_000_000, "5000.0 GB"),
    ],
)
def test_sizes_are_written_as_people_read_them(n: int, text: str) -> None:
    """In powers of 1000, never as 1000.0 of a unit that has a next one."""
    assert format_bytes(n) == text


def test_disk_usage_counts_files_and_not_what_links_lead_to(tmp_path: Path) -> None:
    """All files below a folder; a link counts as a link; nothing counts nothing."""
    (tmp_path / "data" / "sub").mkdir(parents=True)
    (tmp_path / "big").write_bytes(bytes(100_000))
    (tmp_path / "data" / "a").write_bytes(bytes(10))
    (tmp_path / "data" / "sub" / "b").write_bytes(bytes(20))
    assert disk_usage(tmp_path / "data") == 30
    (tmp_path / "data" / "link").symlink_to(tmp_path / "big")
    (tmp_path / "data" / "round").symlink_to(tmp_path / "data")
    assert 30 < disk_usage(tmp_path / "data") < 1000
    assert disk_usage(tmp_path / "big") == 100_000
    assert disk_usage(tmp_path / "nothing") == 0


# --- whole or absent --------------------------------------------------------------------------


@given(first=st.text(), second=st.text())
@settings(max_examples=10, deadline=None)
def test_text_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, first: str, second: str
) -> None:
    """Any text that UTF-8 can hold, line ends as given; a second one replaces it."""
    path = tmp_path_factory.mktemp("text") / "new" / "folder" / "a.txt"
    for text in (first, second):
        try:
            data = text.encode()
        except UnicodeEncodeError:  # Half a surrogate pair is no text.
            continue
        atomic_write_text(path, text)
        assert path.read_bytes() == data
        assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


def test_until_it_is_whole_the_old_file_is_there(tmp_path: Path) -> None:
    """Meanwhile a reader sees what was there; afterwards what is new."""
    path = tmp_path / "a.json"
    atomic_write_text(path, "old")
    with atomic_path(path) as temporary:
        assert temporary.parent == tmp_path and temporary.suffix == ".json"
        assert temporary.name.startswith(".") and not temporary.exists()
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyboardInterrupt()])
def test_an_error_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, error: BaseException
) -> None:
    """Ctrl-C included."""
    path = tmp_path / "a.txt"
    atomic_write_text(path, "old")
    with pytest.raises(type(error)), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_block_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    """A bug of ours, not an empty file."""
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a.txt"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_long_name_is_no_trouble(tmp_path: Path) -> None:
    """The temporary name is no longer than the system allows."""
    path = tmp_path / ("n" * 250 + ".txt")
    atomic_write_text(path, "here")
    assert path.read_text() == "here"


def test_many_writers_of_one_file_leave_one_whole_file(tmp_path: Path) -> None:
    """Whoever was last, it is the whole text of one of them."""
    path = tmp_path / "a.txt"
    threads = [
        threading.Thread(target=atomic_write_text, args=(path, str(i) * 100_000)) for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    text = path.read_text()
    assert len(text) == 100_000 and len(set(text)) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_others_may_read_what_the_umask_lets_them(tmp_path: Path) -> None:
    """Files are not their owner's alone, as temporary files are."""
    before = os.umask(0o022)
    try:
        atomic_write_bytes(tmp_path / "a", b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o644


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "The disk is full: .*a.txt could not be written"),
        (errno.EDQUOT, "The disk is full"),
        (errno.EACCES, "a.txt cannot be written .*Choose another place"),
        (errno.EROFS, "cannot be written"),
    ],
)
def test_a_disk_that_refuses_is_a_store_error(tmp_path: Path, code: int, words: str) -> None:
    """It names the place, and nothing half-written stays."""
    path = tmp_path / "a.txt"
    with pytest.raises(StoreError, match=words), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise OSError(code, os.strerror(code))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["file/a.txt", "file/sub/a.txt", "folder"])
def test_a_file_where_a_folder_is_to_be_is_a_store_error(tmp_path: Path, place: str) -> None:
    """And a folder where the file is to be; both stay as they were."""
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder" / "sub").mkdir(parents=True)
    with pytest.raises(StoreError, match=f"{place} cannot be written"):
        atomic_write_text(tmp_path / place, "new")
    assert (tmp_path / "file").read_text() == "in the way"
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "folder", "sub"]


@pytest.mark.parametrize("place", ["/proc/a.zip", "/proc/a/b.txt"])
@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="there is no /proc")
def test_a_folder_that_takes_no_files_is_said(place: str) -> None:
    """It is there, and making a file in it fails as if it were not."""
    with pytest.raises(StoreError, match=f"{place} cannot be written: /proc takes no files"):
        atomic_write_text(place, "text")


def test_other_errors_of_the_system_are_passed_on(tmp_path: Path) -> None:
    """Only a full or forbidden disk is the user's to mend."""
    with pytest.raises(FileNotFoundError), disk_errors(tmp_path / "out"):
        (tmp_path / "missing.txt").read_text()
    assert not any(tmp_path.iterdir())
    with pytest.raises(TimeoutError), disk_errors("a place"):
        raise TimeoutError(errno.ETIMEDOUT, "Connection timed out")


# --- locks ------------------------------------------------------------------------------------


def test_a_lock_keeps_others_out_until_it_is_freed(tmp_path: Path) -> None:
    """The second says once that it waits, and comes in after the first has left."""
    path = tmp_path / "new" / "a.lock"
    waiting, order = threading.Event(), []

    def second() -> None:
        with file_lock(path, on_wait=waiting.set):
            order.append("second")

    thread = threading.Thread(target=second)
    with file_lock(path, on_wait=lambda: pytest.fail("nobody holds it")):
        thread.start()
        assert waiting.wait(60)
        order.append("first")
    thread.join(60)
    assert order == ["first", "second"]


def test_a_lock_is_freed_by_an_error(tmp_path: Path) -> None:
    """Whoever comes next does not wait."""
    with pytest.raises(ValueError, match="a bug"), file_lock(tmp_path / "a.lock"):
        raise ValueError("a bug")
    with file_lock(tmp_path / "a.lock", on_wait=lambda: pytest.fail("a stale lock")):
        assert (tmp_path / "a.lock").exists()


def test_a_lock_dies_with_its_holder(tmp_path: Path) -> None:
    """Killed without a chance to tidy up, a process leaves no lock behind."""
    path = tmp_path / "a.lock"
    code = (
        "import fcntl, os, sys, time\n"
        "handle = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)\n"
        "fcntl.flock(handle, fcntl.LOCK_EX)\n"
        "print('held', flush=True)\n"
        "time.sleep(600)\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        waited = []

        def kill() -> None:
            waited.append(True)
            holder.kill()

        with file_lock(path, on_wait=kill):
            assert waited == [True]
    finally:
        holder.kill()
        holder.communicate()


def test_on_wait_may_give_up(tmp_path: Path) -> None:
    """What it raises is passed on, and the holder is not disturbed."""

    def give_up() -> None:
        raise TimeoutError

    with file_lock(tmp_path / "a.lock"):
        with pytest.raises(TimeoutError), file_lock(tmp_path / "a.lock", on_wait=give_up):
            pytest.fail("two hold it")
        with pytest.raises(TimeoutError), file_lock(tmp_path / "a.lock", on_wait=give_up):
            pytest.fail("two hold it")


def test_who_waits_for_a_lock_that_is_removed_locks_the_new_one(tmp_path: Path) -> None:
    """Otherwise two would hold it: one the file that is gone, one the file that is there."""
    path = tmp_path / "a.lock"
    waiting, inside, leave = threading.Event(), threading.Event(), threading.Event()

    def second() -> None:
        with file_lock(path, on_wait=waiting.set):
            inside.set()
            assert leave.wait(60)

    thread = threading.Thread(target=second)
    with file_lock(path):
        thread.start()
        assert waiting.wait(60)
        path.unlink()
    assert inside.wait(60)
    waited = []

    def note() -> None:
        waited.append(True)
        leave.set()

    with file_lock(path, on_wait=note):
        assert waited == [True]
    thread.join(60)


def test_a_lock_that_cannot_be_made_is_a_store_error(tmp_path: Path) -> None:
    """A file where its folder is to be."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match=r"a\.lock"), file_lock(tmp_path / "file" / "a.lock"):
        pytest.fail("held")


# --- archives ---------------------------------------------------------------------------------

_CONTENT = {"set/meta/list.csv": b"a,b\n1,2\n", "set/audio/a.wav": bytes(5000), "set/empty": b""}


def _zip(path: Path, members: dict[str, bytes] = _CONTENT) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("set/audio/", b"")
        for name, data in members.items():
            file.writestr(name, data)
    return path


def _tar(path: Path, mode: str = "w", members: dict[str, bytes] = _CONTENT) -> Path:
    with tarfile.open(path, mode) as file:  # type: ignore[call-overload]
        folder = tarfile.TarInfo("set")
        folder.type = tarfile.DIRTYPE
        file.addfile(folder)
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.uid = len(data), 0o4777, 12345
            file.addfile(info, io.BytesIO(data))
    return path


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


_EACH_KIND = pytest.mark.parametrize(
    "make",
    [
        _zip,
        _tar,
        lambda path: _tar(path, "w:gz"),
        lambda path: _tar(path, "w:bz2"),
        lambda path: _tar(path, "w:xz"),
    ],
    ids=["zip", "tar", "gz", "bz2", "xz"],
)


@_EACH_KIND
def test_archives_are_unpacked(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    """Every kind, by content and not by name: the files, and which they are."""
    archive, target = make(tmp_path / "archive"), tmp_path / "new" / "target"
    safe_extract(archive, target)
    written = _files(target)
    assert {str(p.relative_to(target)): p.read_bytes() for p in written} == _CONTENT
    # Neither set-uid nor executable, and ours.
    for path in written:
        assert not path.stat().st_mode & 0o6111
        assert path.stat().st_uid == os.geteuid()
    # Once more over what is there.
    safe_extract(archive, target)
    assert _files(target) == written


_EVIL = [
    "../evil",
    "set/../../evil",
    "/tmp/l2i-evil",
    "..",
    "set/..",
    "..\\evil",
    "set\\..\\..\\evil",
    "C:\\evil",
    "C:evil",
    "\\\\server\\share\\evil",
]


@pytest.mark.parametrize("name", _EVIL)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_member_that_would_leave_the_folder_stops_all(
    tmp_path: Path, kind: str, name: str
) -> None:
    """It is named, and nothing is written, not even what comes before it."""
    members = {"good": b"x", name: b"evil"}
    make = {"zip": _zip, "tar": lambda path, members: _tar(path, members=members)}[kind]
    archive = make(tmp_path / "archive", members)  # type: ignore[operator]
    target = tmp_path / "target"
    with pytest.raises(DataError, match=r"was not unpacked: its member .* would leave the folder"):
        safe_extract(archive, target)
    assert [p.name for p in tmp_path.iterdir()] == ["archive"]
    assert not Path("/tmp/l2i-evil").exists()


def test_a_zip_member_with_a_nul_in_its_name_is_refused(tmp_path: Path) -> None:
    """zipfile would quietly cut the name there."""
    archive = _zip(tmp_path / "a.zip", {"goodXevil": b"x"})
    archive.write_bytes(archive.read_bytes().replace(b"goodXevil", b"good\0evil"))
    with pytest.raises(DataError, match="would leave the folder"):
        safe_extract(archive, tmp_path / "target")
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE],
    ids=["symbolic link", "hard link", "character device", "block device", "pipe"],
)
def test_tar_members_that_are_no_files_stop_all(tmp_path: Path, kind: bytes) -> None:
    """A link could lead what follows it elsewhere."""
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        file.addfile(tarfile.TarInfo("good"))
        odd = tarfile.TarInfo("odd")
        odd.type, odd.linkname = kind, "good"
        file.addfile(odd)
    with pytest.raises(DataError, match="its member 'odd' is a link or a device"):
        safe_extract(tmp_path / "a.tar", tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_a_zip_member_that_is_a_link_stops_all(tmp_path: Path) -> None:
    """As Unix writes them into a zip."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("good", b"x")
        link = zipfile.ZipInfo("odd")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(link, "/etc/passwd")
    with pytest.raises(DataError, match="its member 'odd' is a link or a device"):
        safe_extract(tmp_path / "a.zip", tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_an_encrypted_zip_is_said(tmp_path: Path) -> None:
    """There is no password to ask for."""
    archive = _zip(tmp_path / "a.zip", {"secret": b"x"})
    content = bytearray(archive.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.find(mark)
        while at >= 0:
            content[at + offset] |= 1
            at = content.find(mark, at + 1)
    archive.write_bytes(content)
    with pytest.raises(DataError, match="is encrypted"):
        safe_extract(archive, tmp_path / "target")


def test_a_link_in_the_target_is_replaced_not_followed(tmp_path: Path) -> None:
    """What lies where it leads stays as it was."""
    outside = tmp_path / "outside"
    outside.write_bytes(b"mine")
    target = tmp_path / "target"
    (target / "set").mkdir(parents=True)
    (target / "set" / "empty").symlink_to(outside)
    safe_extract(_zip(tmp_path / "a.zip"), target)
    assert outside.read_bytes() == b"mine"
    assert not (target / "set" / "empty").is_symlink()


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_that_contradicts_itself_stops_all(tmp_path: Path, kind: str) -> None:
    """A member that is a file and a folder at once: a sentence, and nothing is written."""
    members = {"a": b"x", "a/b": b"y"}
    make = {"zip": _zip, "tar": lambda path, members: _tar(path, members=members)}[kind]
    archive = make(tmp_path / "archive", members)  # type: ignore[operator]
    with pytest.raises(DataError, match="its member 'a' is a file and a folder at once"):
        safe_extract(archive, tmp_path / "target")
    assert not (tmp_path / "target").exists()


@_EACH_KIND
def test_an_archive_that_was_cut_is_damaged(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    """Wherever it was cut, it is a sentence with its name; only of a plain tar nobody can tell."""
    content = make(tmp_path / "whole").read_bytes()
    archive = tmp_path / "cut"
    for share in (0.1, 0.3, 0.5, 0.7, 0.9, 0.99):
        archive.write_bytes(content[: int(len(content) * share)])
        target = tmp_path / f"target-{share}"
        try:
            safe_extract(archive, target)
        except DataError as error:
            assert str(archive) in str(error)
        else:
            # A tar ends in padding, without which it is whole; cut between two members, it is a
            # smaller tar. Each file that comes out of it is whole.
            assert make is _tar, f"cut to {share}, it was taken for whole"
            files = {str(p.relative_to(target)): p.read_bytes() for p in _files(target)}
            assert files.items() <= _CONTENT.items()
            assert share > 0.5 or files != _CONTENT


@pytest.mark.parametrize("mode", ["zip", "w:gz", "w:bz2", "w:xz"])
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_flipped_bytes_are_noticed_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, mode: str, data: st.DataObject
) -> None:
    """Nothing but a `DataError` comes out, and what is written stays within the folder."""
    folder = tmp_path_factory.mktemp("flip")
    archive = _zip(folder / "a") if mode == "zip" else _tar(folder / "a", mode)
    content = bytearray(archive.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    archive.write_bytes(content)
    target = folder / "target"
    try:
        safe_extract(archive, target)
    except DataError as error:
        assert str(archive) in str(error)
    else:
        assert all(path.resolve().is_relative_to(target.resolve()) for path in _files(target))
        if mode != "zip":  # Whose names have no checksum.
            assert {str(p.relative_to(target)): p.read_bytes() for p in _files(target)} == _CONTENT
    assert {p.name for p in folder.iterdir()} <= {"a", "target"}


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>404</html>", gzip.compress(b"x"), bz2.compress(b"x"), lzma.compress(b"x")],
    ids=["empty", "page", "gzip", "bz2", "xz"],
)
def test_what_is_no_archive_is_said(tmp_path: Path, content: bytes) -> None:
    """A page of a server that did not have it, or one compressed file."""
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.zip is (neither a zip nor a tar archive|damaged)"):
        safe_extract(tmp_path / "a.zip", tmp_path / "target")


def test_an_archive_that_is_not_there_is_said(tmp_path: Path) -> None:
    """By its name."""
    with pytest.raises(DataError, match=r"There is no archive .*a\.zip"):
        safe_extract(tmp_path / "a.zip", tmp_path / "target")


def test_a_disk_that_fills_while_unpacking_is_a_store_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The archive is not called damaged for it, and half a file does not stay."""
    archive = _zip(tmp_path / "a.zip")

    def full(source: object, file: io.BufferedWriter, length: int = 0) -> None:
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("l2i.storage.files.shutil.copyfileobj", full)
    with pytest.raises(StoreError, match=r"The disk is full: .*target"):
        safe_extract(archive, tmp_path / "target")
    assert [p for p in (tmp_path / "target").rglob("*") if p.is_file()] == []


@given(
    st.lists(
        st.sampled_from(["a", "..", ".", "", "b.wav", "...", "\0", "C:", "a..b"]),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from(["/", "\\"]),
)
def test_is_inside_never_lets_a_name_out(parts: list[str], slash: str) -> None:
    """Joined to a folder and tidied, an accepted name lies in it, read by Unix or by Windows."""
    import ntpath
    import posixpath

    name = slash.join(parts)
    if is_inside(name):
        assert (posixpath.normpath(posixpath.join("/base", name)) + "/").startswith("/base/")
        assert (ntpath.normpath(ntpath.join("D:\\base", name)) + "\\").startswith("D:\\base\\")
        assert "\0" not in name
    else:
        assert set(parts) & {"..", "C:", "\0", ""}
