"""`l2i.data.cache`: every clip is decoded once, whatever happens meanwhile."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import soundfile

from l2i.data import card
from l2i.data.base import Card, Files, Waveform
from l2i.data.cache import WaveformCache
from l2i.data.digests import digests_of
from l2i.errors import DataError, StoreError
from l2i.storage import file_lock
from l2i.types import Clip
from tests import miniatures
from tests.conftest import REPOSITORY


@dataclass
class Made:
    """A data set made on the spot that counts what it is asked for; see `DataSet`."""

    n_clips: int = 6
    sample_rate: int = 100
    n_samples: int = 50
    generator: str = "made v1 seed=0"
    card: Card = field(default_factory=lambda: card("demo"))
    loaded: list[str] = field(default_factory=list)
    # Called before each clip is made.
    before: Callable[[Clip], None] = lambda clip: None

    def clips(self) -> tuple[Clip, ...]:
        """Their ids are not in the order of their numbers."""
        return tuple(Clip(f"clip-{(7 * i) % 100:02d}", (0,)) for i in range(self.n_clips))

    def load(self, clip: Clip) -> Waveform:
        """A ramp that tells which clip it is."""
        self.before(clip)
        self.loaded.append(clip.id)
        return (int(clip.id[-2:]) + np.arange(self.n_samples) / 1000).astype(np.float32)


def _names(folder: Path) -> set[str]:
    """What lies there, but for locks and the memo of digests."""
    return {p.name for p in folder.iterdir() if not p.name.endswith((".lock", ".sqlite"))}


@pytest.fixture
def cache(tmp_path: Path) -> WaveformCache:
    """An empty one."""
    return WaveformCache(tmp_path / "cache")


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Twelve clips in three sub-folders."""
    data = miniatures.opened("folder", miniatures.folder_tree(tmp_path / "data", 4))
    assert isinstance(data, Files)
    return data


def _settle(data: Files) -> None:
    """Make its files old, so that the memo of digests may trust their times of change."""
    for clip in data.clips():
        assert clip.path is not None
        os.utime(clip.path, (1e9, 1e9))


# --- once -------------------------------------------------------------------------------------


def test_clips_are_decoded_once(cache: WaveformCache) -> None:
    """The second time nothing is loaded, and no progress is told."""
    data, told = Made(), []
    first = cache.open(data, data.clips(), progress=lambda done, total: told.append((done, total)))
    assert told == [(i, 6) for i in range(1, 7)]
    assert sorted(data.loaded) == sorted(clip.id for clip in data.clips())
    again = Made(before=lambda clip: pytest.fail("decoded again"))
    second = cache.open(again, data.clips(), progress=lambda *_: pytest.fail("progress told"))
    assert second.path == first.path
    np.testing.assert_array_equal(second.array, first.array)


def test_each_row_is_its_clip(cache: WaveformCache) -> None:
    """By id, in whatever order clips are asked for: what `load` gives."""
    data = Made()
    waves = cache.open(data, data.clips())
    assert waves.array.shape == (6, 50) and waves.array.dtype == np.float32
    wanted = [data.clips()[i] for i in (4, 0, 0, 3)]
    taken = waves.take(wanted)
    np.testing.assert_array_equal(taken, np.stack([data.load(clip) for clip in wanted]))
    np.testing.assert_array_equal(waves.array[waves.rows(wanted)], taken)


def test_files_come_out_as_they_are_read(cache: WaveformCache, files: Files) -> None:
    """Decoded, and not normalised."""
    waves = cache.open(files, files.clips())
    for clip in files.clips():
        np.testing.assert_array_equal(waves.take([clip])[0], files.load(clip))


def test_a_batch_may_be_written_to_and_the_cache_may_not(cache: WaveformCache) -> None:
    """`take` gives a copy; the array itself is mapped, read-only."""
    data = Made()
    waves = cache.open(data, data.clips())
    assert isinstance(waves.array, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        waves.array[0, 0] = 1.0
    waves.take(data.clips())[:] = 0.0
    assert waves.array.any()


def test_the_order_of_the_clips_does_not_matter(cache: WaveformCache) -> None:
    """The same clips in another order are the same entry."""
    data = Made()
    first = cache.open(data, data.clips())
    second = cache.open(data, data.clips()[::-1])
    assert first.path == second.path and first.index == second.index


# --- keyed by content and settings ------------------------------------------------------------


@pytest.mark.parametrize(
    "other",
    [
        Made(sample_rate=200),
        Made(n_samples=49),
        Made(generator="made v1 seed=1"),
        Made(generator="made v2 seed=0"),
        Made(n_clips=5),
    ],
    ids=["rate", "length", "seed", "version", "clips"],
)
def test_another_form_is_another_entry(cache: WaveformCache, other: Made) -> None:
    """Sample rate, length, generator and clips are part of the key; both entries stay."""
    data = Made()
    first, second = cache.open(data, data.clips()), cache.open(other, other.clips())
    assert first.path != second.path
    assert second.array.shape == (other.n_clips, other.n_samples)
    assert len(cache.entries()) == 2


def test_another_version_of_the_code_is_another_entry(
    cache: WaveformCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an older l2i decoded is not taken for what this one would decode."""
    data = Made()
    first = cache.open(data, data.clips())
    monkeypatch.setattr("l2i.data.cache.VERSION", 999)
    assert cache.open(data, data.clips()).path != first.path


def test_a_changed_file_is_decoded_anew(cache: WaveformCache, files: Files) -> None:
    """Its bytes are part of the key."""
    _settle(files)
    before = cache.open(files, files.clips())
    victim = files.clips()[5]
    assert victim.path is not None
    soundfile.write(victim.path, miniatures.sound([2], 77), 8000)
    after = cache.open(files, files.clips())
    assert after.path != before.path
    np.testing.assert_array_equal(after.take([victim])[0], files.load(victim))
    assert not np.array_equal(after.take([victim]), before.take([victim]))


def test_a_file_changed_within_the_clocks_grain_is_seen(cache: WaveformCache, files: Files) -> None:
    """Same size and same time of change as a moment ago: young files are read, not remembered."""
    before = cache.open(files, files.clips())
    path = files.clips()[0].path
    assert path is not None
    info = path.stat()
    soundfile.write(path, miniatures.sound([2], 77), 8000, subtype="PCM_16")
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (info.st_size, info.st_mtime_ns)
    assert cache.open(files, files.clips()).path != before.path


def test_files_that_change_places_are_seen(cache: WaveformCache, files: Files) -> None:
    """Two of one size and one old time, swapped: what is remembered of a path goes by more."""
    _settle(files)
    before = cache.open(files, files.clips())
    first, second = files.clips()[0], files.clips()[-1]
    assert first.path is not None and second.path is not None
    assert first.path.stat().st_size == second.path.stat().st_size
    aside = first.path.with_name("aside")
    first.path.rename(aside)
    second.path.rename(first.path)
    aside.rename(second.path)
    after = cache.open(files, files.clips())
    assert after.path != before.path
    np.testing.assert_array_equal(after.take([first]), before.take([second]))


def test_cleaning_one_data_set_forgets_what_files_hold(cache: WaveformCache, files: Files) -> None:
    """For a disk whose times cannot be trusted: every file is read again."""
    _settle(files)
    cache.open(files, files.clips())
    assert (cache.folder / ".digests.sqlite").is_file()
    cache.clean("folder")
    assert not (cache.folder / ".digests.sqlite").exists()


def test_a_moved_data_set_is_not_decoded_again(
    cache: WaveformCache, files: Files, tmp_path: Path
) -> None:
    """Where files lie, and when they were written, is not part of the key."""
    before = cache.open(files, files.clips())
    moved = tmp_path / "another place"
    shutil.move(files.root, moved)
    data = miniatures.opened("folder", moved)
    _settle(data)  # type: ignore[arg-type]
    after = cache.open(data, data.clips(), progress=lambda *_: pytest.fail("decoded again"))
    assert after.path == before.path


def test_files_are_read_for_their_digest_once(
    cache: WaveformCache, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same size and time of change, the remembered digest will do."""
    _settle(files)
    first = cache.open(files, files.clips())
    monkeypatch.setattr("l2i.data.digests._digest", lambda path: pytest.fail(f"read {path} again"))
    assert cache.open(files, files.clips()).path == first.path


def test_without_its_memo_the_cache_works(cache: WaveformCache, files: Files) -> None:
    """A damaged memo of digests costs time and nothing else."""
    _settle(files)
    first = cache.open(files, files.clips())
    memo = cache.folder / ".digests.sqlite"
    assert memo.is_file()
    memo.write_bytes(b"this is no data base" * 100)
    assert cache.open(files, files.clips()).path == first.path


def test_a_name_that_is_no_utf8_is_digested(tmp_path: Path) -> None:
    """It cannot be remembered; that it must be renamed is said by who decodes it."""
    path = tmp_path / os.fsdecode(b"latin\xe9.wav")
    path.write_bytes(b"abc")
    os.utime(path, (0, 0))
    assert digests_of(tmp_path, [path]) == digests_of(tmp_path, [path])


# --- what cannot be decoded -------------------------------------------------------------------


def test_no_clips_are_an_error(cache: WaveformCache) -> None:
    """There is no such thing as an empty entry."""
    with pytest.raises(DataError, match="No clips of Built-in sounds"):
        cache.open(Made(), [])


def test_missing_clips_are_counted_and_named(cache: WaveformCache, files: Files) -> None:
    """Before anything is decoded, with the command that lists them all."""
    for clip in files.clips()[:4]:
        assert clip.path is not None
        clip.path.unlink()
    with pytest.raises(DataError, match=r"4 of 12 clips of data are missing: .*bark.* and 1 more"):
        cache.open(files, files.clips())
    assert _names(cache.folder) == set()


def test_a_clip_that_cannot_be_decoded_leaves_nothing_behind(
    cache: WaveformCache, files: Files
) -> None:
    """It is named; once it is mended, the same call works."""
    path = files.clips()[7].path
    assert path is not None
    good = path.read_bytes()
    path.write_bytes(b"no sound")
    with pytest.raises(DataError, match=str(path)):
        cache.open(files, files.clips())
    assert _names(cache.folder) == set()
    other = files.clips()[9].path
    assert other is not None
    other.write_bytes(b"no sound")
    more = r"1 more file is as bad: 'l2i data check folder' lists them all"
    with pytest.raises(DataError, match=rf"{path} cannot be decoded.* {more}"):
        cache.open(files, files.clips())
    assert _names(cache.folder) == set()
    for each in (path, other):
        each.write_bytes(good)
    assert cache.open(files, files.clips()).array.shape == (12, 2000)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("a bug"), MemoryError()])
def test_whatever_stops_decoding_leaves_nothing_behind(
    cache: WaveformCache, error: BaseException
) -> None:
    """Ctrl-C, a bug, no memory: it is passed on, and no half of an entry stays."""

    def stop(clip: Clip) -> None:
        if clip.id == "clip-21":
            raise error

    data = Made(before=stop)
    with pytest.raises(type(error)):
        cache.open(data, data.clips())
    assert _names(cache.folder) == set()


def test_a_full_disk_is_said_before_decoding(
    cache: WaveformCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is needed, what is left, and what to do."""
    data = Made(n_clips=5, n_samples=1000, before=lambda clip: pytest.fail("decoded"))
    monkeypatch.setattr(
        "l2i.data.cache.shutil.disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 10_000)
    )
    with pytest.raises(StoreError, match=r"need 20\.0 kB, but .* has 10\.0 kB left.*L2I_CACHE_DIR"):
        cache.open(data, data.clips())
    assert _names(cache.folder) == set()


def test_a_disk_that_fills_meanwhile_leaves_nothing_behind(
    cache: WaveformCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a sentence, and the space is given back."""
    write = os.pwrite

    def full(handle: int, data: memoryview, offset: int) -> int:
        if offset > 700:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(handle, data, offset)

    monkeypatch.setattr(os, "pwrite", full)
    data = Made()
    with pytest.raises(StoreError, match="The disk is full"):
        cache.open(data, data.clips())
    assert _names(cache.folder) == set()


def test_a_disk_that_takes_a_little_at_a_time_gets_all(
    cache: WaveformCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that was cut short is gone on with."""
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda h, data, offset: write(h, data[:7], offset))
    data = Made()
    waves = cache.open(data, data.clips())
    np.testing.assert_array_equal(
        waves.take(data.clips()), np.stack([data.load(clip) for clip in data.clips()])
    )


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    """A file where the cache's folder is to be."""
    (tmp_path / "file").write_text("in the way")
    data = Made()
    with pytest.raises(StoreError, match="cache cannot be written"):
        WaveformCache(tmp_path / "file" / "cache").open(data, data.clips())


# --- damage, crashes, company -----------------------------------------------------------------


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


@pytest.mark.parametrize(
    "damage",
    [
        lambda entry: _cut(entry / "waveforms.npy"),
        lambda entry: (entry / "waveforms.npy").write_bytes(b""),
        lambda entry: (entry / "waveforms.npy").unlink(),
        lambda entry: np.save(entry / "waveforms.npy", np.zeros((6, 50))),
        lambda entry: np.save(entry / "waveforms.npy", np.zeros((6, 49), np.float32)),
        lambda entry: _cut(entry / "index.json"),
        lambda entry: (entry / "index.json").unlink(),
        lambda entry: (entry / "index.json").write_text("[]"),
        lambda entry: (entry / "index.json").write_text('{"ids": ["clip-00"]}'),
        lambda entry: (entry / "index.json").write_text('{"ids": 6}'),
    ],
    ids=[
        *("cut", "empty", "gone", "float64", "shape"),
        *("cut list", "no list", "no table", "few ids", "no ids"),
    ],
)
def test_a_damaged_entry_is_made_anew(
    cache: WaveformCache, damage: Callable[[Path], object]
) -> None:
    """It is never taken for whole, and never in the way."""
    data = Made()
    damage(cache.open(data, data.clips()).path)
    data.loaded.clear()
    waves = cache.open(data, data.clips())
    assert len(data.loaded) == 6
    np.testing.assert_array_equal(waves.take(data.clips())[3], data.load(data.clips()[3]))


# A process of its own: what it loads it writes to a log; before its third clip it waits.
_CHILD = """
import sys, threading, time
from pathlib import Path
from l2i.data.cache import WaveformCache
from tests.test_cache import Made

folder, name = Path(sys.argv[1]), sys.argv[2]
lock = threading.Lock()

def before(clip):
    with lock, open(folder / "log", "a") as log:
        log.write(f"{name} {clip.id}\\n")
    if clip.id == "clip-14":
        (folder / f"{name} is at work").touch()
        while not (folder / "go").exists():
            time.sleep(0.01)

def wait():
    (folder / f"{name} waits").touch()

data = Made(before=before)
waves = WaveformCache(folder / "cache").open(data, data.clips(), on_wait=wait)
print(waves.path.name, float(waves.take(data.clips()).sum()))
"""


def _start(folder: Path, name: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(folder), name],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _until(there: Callable[[], bool]) -> None:
    """Wait for something that will happen; the limit is only there to end a broken test."""
    end = time.monotonic() + 120
    while not there():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Starts processes, and leaves none behind."""
    started: list[subprocess.Popen[str]] = []

    def start(name: str) -> subprocess.Popen[str]:
        started.append(_start(tmp_path, name))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_two_processes_at_once_decode_once(
    tmp_path: Path, child: Callable[[str], subprocess.Popen[str]]
) -> None:
    """The second waits, says so, and finds what the first made: every clip is loaded once."""
    one = child("one")
    _until((tmp_path / "one is at work").exists)
    two = child("two")
    _until((tmp_path / "two waits").exists)
    (tmp_path / "go").touch()
    outputs = [process.communicate(timeout=120) for process in (one, two)]
    assert [one.returncode, two.returncode] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0] != ""
    log = (tmp_path / "log").read_text().splitlines()
    assert sorted(log) == sorted(f"one {clip.id}" for clip in Made().clips())
    assert not (tmp_path / "one waits").exists()


def test_a_killed_process_leaves_no_entry_and_no_lock(
    tmp_path: Path, cache: WaveformCache, child: Callable[[str], subprocess.Popen[str]]
) -> None:
    """Its half is never seen; whoever comes next sweeps it up and makes a whole one."""
    process = child("one")
    _until((tmp_path / "one is at work").exists)
    assert len(cache.leftovers()) == 1 and cache.entries() == []
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=120)
    assert len(cache.leftovers()) == 1 and cache.entries() == []
    data = Made()
    waves = cache.open(data, data.clips(), on_wait=lambda: pytest.fail("a stale lock"))
    assert len(data.loaded) == 6 and waves.array.shape == (6, 50)
    assert cache.leftovers() == [] and len(cache.entries()) == 1


def test_any_open_sweeps_up_what_others_left(
    tmp_path: Path, cache: WaveformCache, child: Callable[[str], subprocess.Popen[str]]
) -> None:
    """Not what a living process is at work on, though."""
    process = child("one")
    _until((tmp_path / "one is at work").exists)
    other = Made(sample_rate=200)
    cache.open(other, other.clips())
    assert len(cache.leftovers()) == 1
    process.kill()
    process.wait(timeout=120)
    third = Made(sample_rate=300)
    cache.open(third, third.clips())
    assert cache.leftovers() == []


def test_two_threads_at_once_decode_once(cache: WaveformCache) -> None:
    """As two processes do."""
    data, waited, opened = Made(), threading.Event(), []

    def hold(clip: Clip) -> None:
        assert waited.wait(60)

    data.before = hold
    threads = [
        threading.Thread(
            target=lambda: opened.append(cache.open(data, data.clips(), on_wait=waited.set))
        )
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(data.loaded) == 6
    assert len(opened) == 2 and opened[0].path == opened[1].path


# --- what is there, and its removal -----------------------------------------------------------


def test_entries_say_what_is_there(cache: WaveformCache, files: Files) -> None:
    """Data set, clips, form and bytes; of all or of one data set."""
    assert cache.entries() == []
    data = Made()
    made = cache.open(data, data.clips())
    cache.open(files, files.clips())
    (entry,) = cache.entries("demo")
    assert (entry.dataset, entry.path) == ("demo", made.path)
    assert (entry.n_clips, entry.sample_rate) == (6, 100)
    assert entry.n_bytes == sum(p.stat().st_size for p in made.path.iterdir()) > 6 * 50 * 4
    assert {e.dataset for e in cache.entries()} == {"demo", "folder"}
    assert cache.entries("esc10") == []


def test_strange_things_in_the_folder_are_no_entries(cache: WaveformCache) -> None:
    """They are neither listed nor removed."""
    data = Made()
    cache.open(data, data.clips())
    (cache.folder / "notes.txt").write_text("mine")
    (cache.folder / "empty").mkdir()
    (cache.folder / "odd").mkdir()
    (cache.folder / "odd" / "index.json").write_text(json.dumps({"dataset": "demo"}))
    assert len(cache.entries()) == 1
    cache.clean()
    assert _names(cache.folder) == {"notes.txt", "empty", "odd"}


def test_clean_removes_the_entries_of_one_data_set(cache: WaveformCache, files: Files) -> None:
    """The others' stay, and so do the data sets themselves."""
    data = Made()
    cache.open(data, data.clips())
    kept = cache.open(files, files.clips())
    assert len(cache.entries()) == 2
    cache.clean("demo")
    assert [entry.path for entry in cache.entries()] == [kept.path]
    assert files.check().ok


def test_clean_removes_everything(cache: WaveformCache, files: Files) -> None:
    """Entries, their locks, the memo and what killed processes left."""
    data = Made()
    cache.open(data, data.clips())
    cache.open(files, files.clips())
    (cache.folder / ".demo-00.partial").mkdir()
    cache.clean()
    assert list(cache.folder.glob("*")) == []
    assert {p.name for p in cache.folder.iterdir()} <= {".demo-00.lock"}
    data.loaded.clear()
    cache.open(data, data.clips())
    assert len(data.loaded) == 6


def test_clean_of_nothing_is_no_error(cache: WaveformCache) -> None:
    """Where there is no cache, there is nothing to remove."""
    cache.clean()
    assert cache.leftovers() == []


def test_clean_leaves_alone_what_another_is_at_work_on(cache: WaveformCache) -> None:
    """A half-made entry whose lock is held is not swept up."""
    partial = cache.folder / ".demo-00.partial"
    partial.mkdir(parents=True)
    with file_lock(cache.folder / ".demo-00.lock"):
        cache.clean()
        assert partial.is_dir()
    cache.clean()
    assert not partial.exists()


def test_who_has_an_entry_mapped_keeps_it(cache: WaveformCache) -> None:
    """Removing the files takes nothing from a run that is under way."""
    data = Made()
    waves = cache.open(data, data.clips())
    before = np.array(waves.array)
    cache.clean()
    assert not waves.path.exists()
    np.testing.assert_array_equal(waves.take(data.clips()), before[waves.rows(data.clips())])


def test_the_users_cache_is_where_the_variable_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``L2I_CACHE_DIR``, or else the system's place for caches."""
    assert WaveformCache().folder == Path(os.environ["XDG_CACHE_HOME"]) / "l2i" / "waveforms"
    monkeypatch.setenv("L2I_CACHE_DIR", str(tmp_path / "mine"))
    assert WaveformCache().folder == tmp_path / "mine" / "waveforms"
    monkeypatch.setenv("L2I_CACHE_DIR", "~/mine")
    assert WaveformCache().folder == Path(os.environ["HOME"]) / "mine" / "waveforms"


def test_a_users_cache_that_cannot_be_written_is_made_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Among temporary files, each user's own; not so where a place was asked for."""
    (tmp_path / "file").touch()  # In which even root can make no folder.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "cache"))
    own = Path(tempfile.gettempdir()) / f"l2i-{os.getuid()}"
    assert WaveformCache().folder == own / "waveforms"
    monkeypatch.setenv("L2I_CACHE_DIR", str(tmp_path / "file" / "mine"))
    assert WaveformCache().folder == tmp_path / "file" / "mine" / "waveforms"


# --- without the cache ------------------------------------------------------------------------


def test_streamed_clips_are_those_of_the_cache(cache: WaveformCache, files: Files) -> None:
    """The same samples, rows and identity; nothing is written. Where there is an entry, it is
    used."""
    clips = files.clips()
    streamed = cache.stream(files, clips)
    assert _names(cache.folder) == set()
    made = cache.open(files, clips)
    assert (streamed.path, streamed.index) == (made.path, made.index)
    rows = streamed.rows(clips[:5])
    assert np.array_equal(streamed.array[rows], made.array[rows])
    assert np.array_equal(streamed.array[rows[0]], made.array[rows[0]])
    assert streamed.array.shape == made.array.shape and len(streamed.array) == len(clips)
    assert isinstance(cache.stream(files, clips).array, np.memmap)


def test_a_streamed_clip_that_cannot_be_read_is_silence(cache: WaveformCache, files: Files) -> None:
    """It is named, with the reason; its neighbours are as they were."""
    clips = files.clips()
    streamed = cache.stream(files, clips)
    rows = streamed.rows(clips[:3])
    whole = streamed.array[rows]
    path = clips[1].path
    assert path is not None
    path.write_bytes(b"no sound")
    damaged = streamed.array[rows]
    assert not damaged[1].any() and whole[1].any()
    assert np.array_equal(damaged[[0, 2]], whole[[0, 2]])
    ((name, why),) = streamed.array.broken.items()  # type: ignore[attr-defined]
    assert name == clips[1].id and path.name in why
    path.unlink()
    assert not streamed.array[rows[1]].any()
