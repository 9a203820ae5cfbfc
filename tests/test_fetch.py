"""`l2i.data.fetch`: official sources, fetched once, gone on with, verified; from a local server."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import threading
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from l2i import config
from l2i.data import card, open_dataset
from l2i.data.base import Card, Entry, Remote
from l2i.data.esc50 import ESC10
from l2i.data.fetch import download, fetch, target_folder, verify
from l2i.data.sust import SUST
from l2i.errors import DataError, StoreError
from l2i.storage import file_lock
from tests import miniatures

CONTENT = bytes(range(256)) * 4000  # About a megabyte: several blocks.


@dataclass
class File:
    """A file of the server's, and how the server behaves with it."""

    content: bytes
    tag: str = '"v1"'
    ranges: bool = True
    # Bytes after which each request in turn breaks off; then no more.
    breaks: list[int] = field(default_factory=list)
    # Statuses that each request in turn is answered with; then as it should be.
    statuses: list[int] = field(default_factory=list)
    extra: dict[str, str] = field(default_factory=dict)


class Server(ThreadingHTTPServer):
    """Serves `files`, and remembers what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, File] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []

    def add(self, name: str, content: bytes = CONTENT, **more: Any) -> Remote:
        """Put a file there; where it is to be had."""
        self.files[name] = File(content, **more)
        return Remote(f"http://127.0.0.1:{self.server_port}/{name}", name)

    @property
    def starts(self) -> list[int]:
        """From which byte on was asked for, request by request."""
        wanted = [headers.get("Range", "bytes=0-") for _, headers in self.asked]
        return [int(word.removeprefix("bytes=").removesuffix("-")) for word in wanted]


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server

    def do_GET(self) -> None:
        """Answer with a file or a part of it, or break off, as its `File` says."""
        name = self.path.lstrip("/")
        self.server.asked.append((name, dict(self.headers)))
        file = self.server.files.get(name)
        if file is None:
            self.send_error(404)
            return
        if file.statuses:
            self.send_response(file.statuses.pop(0))
            self.send_header("Content-Length", "0")
            for key, value in file.extra.items():
                self.send_header(key, value)
            self.end_headers()
            return
        start, total = 0, len(file.content)
        wanted = self.headers.get("Range")
        if wanted and file.ranges and self.headers.get("If-Range", file.tag) == file.tag:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= total:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{total}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(total - start))
        self.send_header("ETag", file.tag)
        self.end_headers()
        body = file.content[start:]
        if file.breaks:
            body = body[: file.breaks.pop(0)]
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is printed."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A web server of this machine's, asked without a proxy."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    started = Server()
    thread = threading.Thread(target=started.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield started
    started.shutdown()
    thread.join()
    started.server_close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where files are fetched to."""
    path = tmp_path / "work"
    path.mkdir()
    return path


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- one file ---------------------------------------------------------------------------------


def test_a_file_is_fetched_whole(server: Server, folder: Path) -> None:
    """With progress from the first byte to the last, and nothing left beside it."""
    told: list[tuple[str, int, int | None]] = []
    remote = server.add("a.bin")
    path = download(remote, folder, progress=lambda *words: told.append(words))
    assert path == folder / "a.bin" and path.read_bytes() == CONTENT
    assert _names(folder) == ["a.bin"]
    done = [n for _, n, _ in told]
    assert done == sorted(set(done)) and done[-1] == len(CONTENT)
    assert {(name, total) for name, _, total in told} == {("a.bin", len(CONTENT))}
    assert server.asked[0][1]["Accept-Encoding"] == "identity"
    assert "Range" not in server.asked[0][1]


def test_a_file_that_is_there_is_not_asked_for(server: Server, folder: Path) -> None:
    """Whole and verified by an earlier call."""
    remote = server.add("a.bin")
    download(remote, folder)
    download(remote, folder)
    assert server.starts == [0]


def test_a_transfer_that_breaks_off_goes_on_where_it_was(server: Server, folder: Path) -> None:
    """By itself, with the rest of the same file; the reader is told of the pause."""
    sentences: list[str] = []
    remote = server.add("a.bin", breaks=[300_000, 200_000])
    path = download(remote, folder, say=sentences.append, pause_s=0)
    assert path.read_bytes() == CONTENT
    first, second, third = server.starts
    # But for less than a block each time, what came is not asked for again.
    assert first == 0 and 250_000 < second <= 300_000 and 150_000 < third - second <= 200_000
    assert [headers.get("If-Range") for _, headers in server.asked] == [None, '"v1"', '"v1"']
    assert len(sentences) == 2 and all("trying again in 0 s, from" in line for line in sentences)


def test_another_call_goes_on_where_the_last_one_stopped(server: Server, folder: Path) -> None:
    """As after Ctrl-C: progress begins with what is there."""

    def stop(name: str, done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    remote = server.add("a.bin")
    with pytest.raises(KeyboardInterrupt):
        download(remote, folder, progress=stop)
    assert _names(folder) == ["a.bin.json", "a.bin.part"]
    have = (folder / "a.bin.part").stat().st_size
    assert 0 < have < len(CONTENT)
    told: list[int] = []
    download(remote, folder, progress=lambda name, done, total: told.append(done))
    assert (folder / "a.bin").read_bytes() == CONTENT
    assert server.starts[-1] == have and min(told) > have


def test_a_server_that_cannot_resume_sends_all_again(server: Server, folder: Path) -> None:
    """What is there is thrown away, not put in front."""
    remote = server.add("a.bin", breaks=[300_000], ranges=False)
    assert download(remote, folder, pause_s=0).read_bytes() == CONTENT
    assert server.starts[0] == 0 and server.starts[1] > 250_000 and len(server.starts) == 2


def test_a_file_that_changed_meanwhile_is_fetched_anew(server: Server, folder: Path) -> None:
    """Halves of two files are never put together."""
    remote = server.add("a.bin", breaks=[300_000])
    with pytest.raises(KeyboardInterrupt):
        download(remote, folder, say=_interrupt)
    server.add("a.bin", CONTENT[::-1], tag='"v2"')
    assert download(remote, folder, pause_s=0).read_bytes() == CONTENT[::-1]


def _interrupt(text: str) -> None:
    raise KeyboardInterrupt


def test_without_a_tag_another_length_tells_that_it_changed(server: Server, folder: Path) -> None:
    """A weak tag vouches for no bytes: then what counts is how many there are in all."""
    remote = server.add("a.bin", breaks=[300_000], tag='W/"v"')
    with pytest.raises(KeyboardInterrupt):
        download(remote, folder, say=_interrupt)
    server.add("a.bin", CONTENT[::-1] + b"more", tag='W/"v"')
    assert download(remote, folder, pause_s=0).read_bytes() == CONTENT[::-1] + b"more"
    assert "If-Range" not in server.asked[-1][1]


def test_bytes_of_unknown_origin_are_thrown_away(server: Server, folder: Path) -> None:
    """A part without its note, or with that of another address, is not gone on with."""
    for note in (None, '{"url": "http://elsewhere/a.bin"}', "{half a no"):
        (folder / "a.bin.part").write_bytes(b"what is this")
        if note is not None:
            (folder / "a.bin.json").write_text(note)
        path = download(server.add("a.bin"), folder)
        assert path.read_bytes() == CONTENT
        path.unlink()
    assert set(server.starts) == {0}


def _note(folder: Path, remote: Remote, total: int | None) -> None:
    note = {"url": remote.url, "validator": '"v1"', "total": total}
    (folder / "a.bin.json").write_text(json.dumps(note))


def test_all_bytes_but_not_yet_called_whole(server: Server, folder: Path) -> None:
    """Killed after the last byte: the server has no more to send, and that is known as the end."""
    remote = server.add("a.bin")
    path = download(remote, folder)
    path.rename(folder / "a.bin.part")
    _note(folder, remote, len(CONTENT))
    assert download(remote, folder).read_bytes() == CONTENT
    assert server.starts == [0, len(CONTENT)]


def test_more_bytes_than_the_file_has_are_thrown_away(server: Server, folder: Path) -> None:
    """They are of another file."""
    remote = server.add("a.bin")
    (folder / "a.bin.part").write_bytes(bytes(len(CONTENT) + 1))
    _note(folder, remote, None)
    assert download(remote, folder, pause_s=0).read_bytes() == CONTENT


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
def test_a_server_that_is_busy_is_asked_again(server: Server, folder: Path, status: int) -> None:
    """Some times, with a word to the reader."""
    sentences: list[str] = []
    remote = server.add("a.bin", statuses=[status, status])
    assert download(remote, folder, say=sentences.append, pause_s=0).read_bytes() == CONTENT
    assert len(sentences) == 2 and f"the server answered {status}" in sentences[0]


def test_pauses_grow_and_are_as_long_as_the_server_asks(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Doubled each time, at least what Retry-After says, at most a minute."""
    slept: list[float] = []
    monkeypatch.setattr("l2i.data.fetch.time.sleep", slept.append)
    download(server.add("a.bin", statuses=[503] * 4), folder, pause_s=1)
    assert slept == [1, 2, 4, 8]
    slept.clear()
    download(server.add("b.bin", statuses=[503] * 2, extra={"Retry-After": "7"}), folder)
    assert slept == [7, 7]
    slept.clear()
    download(server.add("c.bin", statuses=[503], extra={"Retry-After": "9999"}), folder)
    assert slept == [60]


def test_a_server_that_stays_busy_is_given_up(server: Server, folder: Path) -> None:
    """After six tries more without a byte; what came so far is kept."""
    remote = server.add("a.bin", breaks=[300_000])
    with pytest.raises(KeyboardInterrupt):
        download(remote, folder, say=_interrupt)
    server.files["a.bin"].statuses = [503] * 100
    with pytest.raises(DataError, match="could not be fetched: the server answered 503") as caught:
        download(remote, folder, pause_s=0)
    assert "run the same command again to go on" in str(caught.value)
    assert len(server.asked) == 1 + 7
    assert 250_000 < (folder / "a.bin.part").stat().st_size <= 300_000


def test_a_transfer_that_gets_on_is_never_given_up(server: Server, folder: Path) -> None:
    """However often it breaks off, as long as bytes come between."""
    remote = server.add("a.bin", breaks=[50_000] * 20)
    assert download(remote, folder, pause_s=0).read_bytes() == CONTENT
    assert len(server.asked) > 20


@pytest.mark.parametrize("status", [401, 403, 410])
def test_a_server_that_refuses_is_not_asked_twice(
    server: Server, folder: Path, status: int
) -> None:
    """It is said with its address and its answer."""
    remote = server.add("a.bin", statuses=[status])
    with pytest.raises(DataError, match=f"could not be fetched: the server answered {status}"):
        download(remote, folder)
    assert len(server.asked) == 1
    assert _names(folder) == []


def test_a_file_the_server_has_not_is_said(server: Server, folder: Path) -> None:
    """404, with the address."""
    remote = replace(server.add("a.bin"), url=server.add("a.bin").url + ".old")
    with pytest.raises(DataError, match=r"\.old could not be fetched: the server answered 404"):
        download(remote, folder)


def test_no_server_at_all_is_said(folder: Path, server: Server) -> None:
    """A port nobody listens at."""
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        remote = Remote(f"http://127.0.0.1:{free.getsockname()[1]}/a.bin", "a.bin")
        with pytest.raises(DataError, match=r"could not be fetched: .*refused"):
            download(remote, folder, pause_s=0)


def test_an_address_that_is_none_is_said(folder: Path) -> None:
    """Without a retry: it will not get better."""
    with pytest.raises(DataError, match="could not be fetched"):
        download(Remote("nonsense://nowhere/a.bin", "a.bin"), folder, pause_s=1000)


# --- verification -----------------------------------------------------------------------------


def _published(content: bytes) -> dict[str, Any]:
    return {
        "size": len(content),
        "md5": hashlib.md5(content).hexdigest(),
        "sha256": hashlib.sha256(content).hexdigest().upper(),
        "git_blob": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest(),
    }


def test_what_was_published_is_accepted(server: Server, folder: Path) -> None:
    """Size, md5, sha256 and git blob id, in either case of letters."""
    remote = replace(server.add("a.bin"), **_published(CONTENT))
    assert download(remote, folder).read_bytes() == CONTENT


def test_a_git_blob_id_is_gits(tmp_path: Path) -> None:
    """The empty file's and hello's are known to everyone who uses git."""
    for content, blob in (
        (b"", "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"),
        (b"hello\n", "ce013625030ba8dba906f756967f9e9ca394464a"),
    ):
        (tmp_path / "a").write_bytes(content)
        verify(tmp_path / "a", Remote("http://x/a", "a", git_blob=blob))
        (tmp_path / "a").write_bytes(content + b"!")
        with pytest.raises(DataError, match=f"git blob is .*, not the published {blob}"):
            verify(tmp_path / "a", Remote("http://x/a", "a", git_blob=blob))


@pytest.mark.parametrize("kind", ["size", "md5", "sha256", "git_blob"])
def test_what_was_not_published_is_refused_and_removed(
    server: Server, folder: Path, kind: str
) -> None:
    """One flipped bit (or one byte more) is enough; the next call fetches anew."""
    changed = CONTENT + b"!" if kind == "size" else CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    remote = replace(server.add("a.bin", changed), **{kind: _published(CONTENT)[kind]})
    with pytest.raises(DataError, match=r"not the .*published"):
        download(remote, folder)
    assert _names(folder) == []
    server.files["a.bin"].content = CONTENT
    assert download(remote, folder).read_bytes() == CONTENT


# --- whole data sets --------------------------------------------------------------------------


def _zipped(root: Path, inside: str = "ESC-50-master") -> bytes:
    """A folder as an archive that wraps it in one, as repositories' archives do."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        for path in sorted(root.rglob("*")):
            if path.is_file():
                file.writestr(f"{inside}/{path.relative_to(root)}", path.read_bytes())
    return data.getvalue()


def _tarred(root: Path, inside: str) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as file:
        file.add(root, inside)
    return data.getvalue()


@pytest.fixture
def esc10(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Card:
    """ESC-10's card, its archive on the local server."""
    root = miniatures.esc50(tmp_path / "source", esc10_only=True)
    remote = server.add("ESC-50-master.zip", _zipped(root))
    made = replace(card("esc10"), remotes=(replace(remote, unpack=True),))
    monkeypatch.setattr("l2i.data.esc50.ESC10", Entry(made, ESC10.open))
    return made


def _opens(name: str, folder: Path) -> int:
    data = open_dataset(config.Dataset(name=name, data_dir=str(folder), **miniatures.FORM))
    assert data.check().ok
    return len(data.clips())


def test_a_data_set_is_fetched_unpacked_and_found(esc10: Card, tmp_path: Path) -> None:
    """On its shelf, under its name, without the archive's wrapping or anything left over."""
    steps: list[str] = []
    shelf = tmp_path / "shelf"
    target = fetch("esc10", shelf, on_step=steps.append)
    assert target == target_folder(esc10, shelf) == shelf / "esc50"
    assert _opens("esc10", target) == _opens("esc10", shelf) == 50
    assert [p.name for p in shelf.iterdir() if not p.name.endswith(".lock")] == ["esc50"]
    assert [line.split()[0] for line in steps] == ["Fetching", "Unpacking", "Checking"]


def _sust_of_three(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch, statuses: Sequence[int] = ()
) -> Card:
    """A list, an archive and, answered as told, one more file; `fetch` takes them for SONYC-UST."""
    root = miniatures.sust(folder / "source")
    remotes = (
        server.add("annotations.csv", (root / "annotations.csv").read_bytes()),
        replace(server.add("audio-0.tar.gz", _tarred(root / "audio", "audio-0")), unpack=True),
        server.add("README.md", b"read me", statuses=list(statuses)),
    )
    made = replace(card("sust"), remotes=remotes)
    monkeypatch.setattr("l2i.data.sust.SUST", Entry(made, SUST.open))
    return made


def test_sust_is_fetched_from_many_files(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lists beside archives: all in one folder, as `open_dataset` wants them."""
    _sust_of_three(server, tmp_path, monkeypatch)
    target = fetch("sust", tmp_path / "shelf")
    assert _names(target) == ["README.md", "annotations.csv", "audio-0"]
    assert _opens("sust", target) == 21


def test_fetch_asks_the_registry(
    esc10: Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By name; the user's shelf is where ``L2I_DATA_DIR`` says."""
    monkeypatch.setenv("L2I_DATA_DIR", str(tmp_path / "shelf"))
    assert fetch("esc10") == tmp_path / "shelf" / "esc50"
    assert _opens("esc10", tmp_path / "shelf") == 50


def test_files_fetched_and_unpacked_before_are_not_fetched_again(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped at the third file of three, the next call asks for that one only."""
    made = _sust_of_three(server, tmp_path, monkeypatch, statuses=[403])
    shelf = tmp_path / "shelf"
    with pytest.raises(DataError, match="403"):
        fetch("sust", shelf)
    assert not target_folder(made, shelf).exists()
    server.asked.clear()
    fetch("sust", shelf)
    assert [name for name, _ in server.asked] == ["README.md"]
    assert _opens("sust", shelf) == 21


@pytest.mark.parametrize("inside", ["a file", "a hidden file", "a folder"])
def test_a_folder_that_is_not_empty_is_never_written_into(
    esc10: Card, server: Server, tmp_path: Path, inside: str
) -> None:
    """Not asked for, not touched; the message names it and says what to do."""
    target = target_folder(esc10, tmp_path)
    target.mkdir()
    name = {"a file": "mine.txt", "a hidden file": ".mine", "a folder": "mine"}[inside]
    if inside == "a folder":
        (target / name).mkdir()
    else:
        (target / name).write_text("mine")
    with pytest.raises(DataError, match=f"{target} is not empty, and nothing in it is overwritten"):
        fetch("esc10", tmp_path)
    assert _names(target) == [name] and server.asked == []


def test_a_file_in_the_way_is_said(esc10: Card, server: Server, tmp_path: Path) -> None:
    """It stays as it was."""
    target_folder(esc10, tmp_path).write_text("mine")
    with pytest.raises(DataError, match="is a file, where a folder is to be"):
        fetch("esc10", tmp_path)
    assert target_folder(esc10, tmp_path).read_text() == "mine" and server.asked == []


def test_a_file_in_place_of_the_shelf_is_said(esc10: Card, tmp_path: Path) -> None:
    """As a sentence that names it."""
    (tmp_path / "shelf").write_text("mine")
    with pytest.raises(StoreError, match="shelf"):
        fetch("esc10", tmp_path / "shelf")


def test_an_empty_folder_is_taken(esc10: Card, tmp_path: Path) -> None:
    """Made beforehand, it is filled."""
    target_folder(esc10, tmp_path).mkdir()
    assert _opens("esc10", fetch("esc10", tmp_path)) == 50


@pytest.mark.parametrize(
    ("name", "words"),
    [("demo", "is made on the spot"), ("demo-multilabel", "is made on the spot"),
     ("folder", "has no source")],
)  # fmt: skip
def test_what_has_no_source_is_said(name: str, words: str, tmp_path: Path) -> None:
    """Built-in sounds, and a folder of one's own."""
    with pytest.raises(DataError, match=words):
        fetch(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("evil", ["../evil.txt", "/tmp/l2i-evil.txt", "ESC-50-master/../../evil"])
def test_an_unsafe_archive_is_refused_whole(
    esc10: Card, server: Server, tmp_path: Path, evil: str
) -> None:
    """Nothing of it is unpacked, here or elsewhere, and it is fetched anew the next time."""
    good = server.files["ESC-50-master.zip"].content
    data = io.BytesIO(good)
    with zipfile.ZipFile(data, "a") as file:
        file.writestr(evil, "evil")
    server.files["ESC-50-master.zip"].content = data.getvalue()
    shelf = tmp_path / "shelf"
    with pytest.raises(DataError, match=r"was not unpacked: its member .* would leave the folder"):
        fetch("esc10", shelf)
    assert not list(tmp_path.rglob("*evil*")) and not Path("/tmp/l2i-evil.txt").exists()
    assert not target_folder(esc10, shelf).exists()
    server.files["ESC-50-master.zip"].content = good
    assert _opens("esc10", fetch("esc10", shelf)) == 50


def test_a_corrupted_archive_is_said_and_fetched_anew(
    esc10: Card, server: Server, tmp_path: Path
) -> None:
    """Without a published checksum the archive's own tells; nothing of it becomes the target."""
    good = server.files["ESC-50-master.zip"].content
    at = good.index(b"RIFF") + 100
    server.files["ESC-50-master.zip"].content = good[:at] + b"XXXX" + good[at + 4 :]
    with pytest.raises(DataError, match=r"ESC-50-master\.zip is damaged"):
        fetch("esc10", tmp_path)
    assert not target_folder(esc10, tmp_path).exists()
    server.files["ESC-50-master.zip"].content = good
    assert _opens("esc10", fetch("esc10", tmp_path)) == 50


def test_what_is_not_the_data_set_does_not_become_the_target(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An archive that lacks clips is kept apart, said, and can be begun anew."""
    root = miniatures.esc50(tmp_path / "source", esc10_only=True)
    gone = sorted((root / "audio").iterdir())[:2]
    for path in gone:
        path.unlink()
    remote = replace(server.add("a.zip", _zipped(root)), unpack=True)
    made = replace(card("esc10"), remotes=(remote,))
    monkeypatch.setattr("l2i.data.esc50.ESC10", Entry(made, ESC10.open))
    shelf = tmp_path / "shelf"
    with pytest.raises(DataError, match=r"gave is not ESC-10: .*lacks 2 of 50 clips") as caught:
        fetch("esc10", shelf)
    work = shelf / ".esc50.download"
    assert f"remove {work} to begin anew" in str(caught.value)
    assert work.is_dir() and not target_folder(made, shelf).exists()


def test_two_at_once_fetch_once(esc10: Card, server: Server, tmp_path: Path) -> None:
    """The second waits, says so, and finds what the first fetched."""
    shelf, waiting = tmp_path / "shelf", threading.Event()
    steps: list[str] = []
    folders: list[Path] = []

    def say(text: str) -> None:
        steps.append(text)
        waiting.set()

    def second() -> None:
        folders.append(fetch("esc10", shelf, on_step=say))

    thread = threading.Thread(target=second)
    with file_lock(shelf / ".esc50.lock"):
        thread.start()
        assert waiting.wait(60)
        # What the first does while it holds the lock.
        other = tmp_path / "other"
        fetch("esc10", other)
        (other / "esc50").rename(shelf / "esc50")
    thread.join(60)
    assert folders == [shelf / "esc50"]
    assert steps == ["Another process is fetching it; waiting."]
    assert server.starts == [0]


def test_a_disk_that_fills_is_said_and_gone_on_with(
    esc10: Card, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came so far is kept."""
    import errno

    def full(name: str, done: int, total: int | None) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StoreError, match="The disk is full"):
        fetch("esc10", tmp_path, progress=full)
    assert (tmp_path / ".esc50.download" / "ESC-50-master.zip.part").stat().st_size > 0
    assert _opens("esc10", fetch("esc10", tmp_path)) == 50
