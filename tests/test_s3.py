"""`l2i.storage.s3` against a real server, and against moto's: whole, repeated, verified."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError

from l2i.errors import StoreError, UsageError
from l2i.run import outbox
from l2i.storage import s3 as store
from l2i.storage import s3_client
from l2i.storage.s3 import Location, fetch, listing, send
from tests.servers import AKID, S3, SECRET, Moto, point_at

PLACE = Location("bucket", "shelf")


@pytest.fixture(params=["rclone", "moto"])
def any_s3(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """Each kind of store, with an empty bucket ``bucket``."""
    server = S3(tmp_path / "s3") if request.param == "rclone" else Moto()
    try:
        server.start()
        point_at(server, monkeypatch)
        if request.param == "moto":
            boto3.client("s3", endpoint_url=server.url).create_bucket(Bucket="bucket")
        yield request.param
    finally:
        server.kill()


def _files(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and not p.name.startswith(".")
    }


def _names(folder: Path) -> set[str]:
    return {p.name for p in folder.rglob("*") if p.is_file()}


def _fill(folder: Path) -> Path:
    """Files of all sorts: empty, nested, of odd names, and one that is sent in pieces."""
    for name, data in {
        "a.txt": b"one",
        "empty": b"",
        "deep/er/b.bin": bytes(range(256)) * 40,
        "sp ace & ümlaut 🐕 +%.wav": b"wav",
        "large.bin": b"0123456789abcdef" * (9 << 16),
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def test_there_and_back(any_s3: str, tmp_path: Path) -> None:
    """What is sent comes back byte for byte, by the same names, and is counted."""
    source = _fill(tmp_path / "source")
    sizes = sum(map(len, _files(source).values()))
    done: list[int] = []
    assert send(source, PLACE) == 5
    names = listing(PLACE)
    assert [f.name for f in names] == sorted(_files(source))
    assert sum(f.size for f in names) == sizes
    assert fetch(PLACE, tmp_path / "back", on_bytes=done.append) == 5
    assert sum(done) == sizes
    assert _files(tmp_path / "back") == _files(source)
    assert not list((tmp_path / "back").rglob("*.tmp*"))


def test_again_nothing_is_moved(any_s3: str, tmp_path: Path) -> None:
    """Files that are there are not sent or fetched again; one that changed is."""
    source = _fill(tmp_path / "source")
    send(source, PLACE)
    assert send(source, PLACE) == 0
    assert fetch(PLACE, tmp_path / "back") == 5
    assert fetch(PLACE, tmp_path / "back") == 0
    (source / "a.txt").write_bytes(b"two")
    assert send(source, PLACE) == 1
    assert fetch(PLACE, tmp_path / "back") == 1
    assert _files(tmp_path / "back") == _files(source)


def test_files_that_are_there_without_a_record(s3: S3, tmp_path: Path) -> None:
    """A crash between a file and its record costs no transfer; a file of the same size and other
    bytes is fetched again."""
    source = _fill(tmp_path / "source")
    send(source, PLACE)
    fetch(PLACE, tmp_path / "back")
    (tmp_path / "back" / ".l2i-fetched").unlink()
    assert fetch(PLACE, tmp_path / "back") == 0
    (tmp_path / "back" / "a.txt").write_bytes(b"eno")
    assert fetch(PLACE, tmp_path / "back") == 1


def test_one_file(s3: S3, tmp_path: Path) -> None:
    """A file has the name it is given; small ones go as bytes, too."""
    (tmp_path / "x").write_bytes(b"x")
    send(tmp_path / "x", PLACE / "y")
    assert (s3.folder / "bucket/shelf/y").read_bytes() == b"x"
    store.write(PLACE / "z", b"zz")
    assert (s3.folder / "bucket/shelf/z").read_bytes() == b"zz"
    assert store.exists(PLACE / "z") and not store.exists(PLACE / "w")


def test_what_broke_off_is_fetched_again(s3: S3, tmp_path: Path) -> None:
    """The server is killed in the middle of a large file, and started again: nothing has the
    file's name before it is whole, and its bytes are told once in sum."""
    data = random.Random(0).randbytes(40 << 20)
    (s3.folder / "bucket/big").write_bytes(data)
    path = tmp_path / "back/big"
    told: list[int] = []
    killed: list[bool] = []

    def on_bytes(n: int) -> None:
        told.append(n)
        if sum(told) >= 10 << 20 and not killed:
            killed.append(path.exists())
            s3.kill()
            threading.Timer(1.0, s3.start).start()

    assert fetch(Location("bucket"), tmp_path / "back", on_bytes=on_bytes, patience_s=60) == 1
    assert killed == [False]
    assert path.read_bytes() == data
    assert sum(told) == len(data) and min(told) < 0
    assert _names(tmp_path / "back") == {".l2i-fetched", "big"}


def test_one_that_cannot_be_fetched(any_s3: str, tmp_path: Path) -> None:
    """An object that is gone since it was listed ends it with its name; the others stay whole, and
    only what is missing is fetched afterwards."""
    source = _fill(tmp_path / "source")
    send(source, PLACE)
    files = listing(PLACE)
    store.client().delete_object(Bucket="bucket", Key="shelf/large.bin")
    with pytest.raises(StoreError, match=r"There is nothing at s3://bucket/shelf/large\.bin"):
        fetch(PLACE, tmp_path / "back", files, patience_s=1)
    back = _files(tmp_path / "back")
    assert back.items() < _files(source).items()
    assert _names(tmp_path / "back") - {".l2i-fetched"} == {Path(name).name for name in back}
    send(source, PLACE)
    assert fetch(PLACE, tmp_path / "back") == 5 - len(back)


def test_changed_since_it_was_listed(any_s3: str, tmp_path: Path) -> None:
    """Said as that, and nothing of it is left."""
    store.write(PLACE / "a", b"one")
    files = listing(PLACE)
    for other in (b"two", b"three"):
        store.write(PLACE / "a", other)
        with pytest.raises(StoreError, match="shelf/a changed while it was read: give the same"):
            fetch(PLACE, tmp_path / "back", files)
        assert _names(tmp_path / "back") == set()


def test_a_store_that_is_away_for_a_while(s3: S3, tmp_path: Path) -> None:
    """Killed and started again while sending, or paused: all arrives, and nobody need know."""
    source = _fill(tmp_path / "source")
    s3.kill()
    threading.Timer(2.0, s3.start).start()
    assert send(source, PLACE, patience_s=60) == 5
    s3.pause()
    threading.Timer(2.0, s3.go_on).start()
    assert fetch(PLACE, tmp_path / "back", patience_s=60) == 5
    assert _files(tmp_path / "back") == _files(source)


def test_a_store_that_stays_away(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given up when patience ends, and not before, in one sentence that names the place."""
    s3.kill()
    pauses: list[float] = []  # In seconds, by a clock that nobody has to wait for.
    clock = SimpleNamespace(monotonic=lambda: sum(pauses), sleep=pauses.append)
    monkeypatch.setattr("l2i.storage.patience.time", clock)
    with pytest.raises(StoreError, match=r"s3://bucket/shelf could not be reached to list it"):
        fetch(PLACE, tmp_path / "back", patience_s=5.0)
    assert sum(pauses) == pytest.approx(5.0) and len(pauses) > 2
    (tmp_path / "x").write_bytes(b"x")
    with pytest.raises(StoreError, match=r"s3://bucket/shelf/x could not be reached to write it"):
        send(tmp_path / "x", PLACE / "x", patience_s=0.5)


def test_waiting_is_said_and_ends(
    s3: S3, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, with the store and how long; L2I_PATIENCE says how long."""
    s3.kill()
    monkeypatch.setenv("L2I_PATIENCE", "2")
    with pytest.raises(StoreError, match="could not be reached to list it"):
        listing(PLACE)
    (line,) = [record.getMessage() for record in caplog.records if record.name == "l2i"]
    assert line.startswith("The store of s3://bucket is away (Could not connect to")
    assert line.endswith("waiting up to 2 s for it.")


_SSO = """
[profile sso]
sso_start_url = https://example.awsapps.com/start
sso_region = us-east-1
sso_account_id = 123456789012
sso_role_name = reader
region = us-east-1
[profile process]
credential_process = /bin/false
region = us-east-1
[profile absent]
credential_process = /no/such
[profile odd]
credential_process = /bin/echo keys
"""


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"AWS_PROFILE": "sso"}, "no valid keys for s3://bucket/shelf .*: log in again"),
        ({"AWS_PROFILE": "absent"}, "/no/such.* mend the credential_process"),
        ({"AWS_PROFILE": "odd"}, "keys cannot be found .* mend the credential_process"),
        ({"AWS_PROFILE": "process"}, "no valid keys for s3://bucket/shelf .*custom-process"),
        ({"AWS_CONFIG_FILE": "broken"}, "Unable to parse config file: .*broken: mend this file"),
        ({"AWS_DEFAULT_REGION": "not a region"}, "'not a region' .*mend AWS_DEFAULT_REGION"),
        ({"AWS_ENDPOINT_URL_S3": "localhost:9000"}, "'localhost:9000' is no address of an S3-"),
        ({"AWS_ENDPOINT_URL": "localhost:9000"}, "localhost:9000; no address of an S3-"),
    ],
)
def test_settings_that_no_waiting_mends(
    settings: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are said at once, without another try, and a run that is sent in the background hears
    so too."""
    Path("aws").write_text(_SSO)
    Path("broken").write_text("what [is this")
    monkeypatch.setenv("AWS_CONFIG_FILE", "aws")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(time, "sleep", lambda s: pytest.fail("It waits."))
    with pytest.raises(StoreError, match=message) as error:
        listing(PLACE)
    assert outbox._hopeless(error.value)


def test_a_region_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address made of one answers nobody; a region of a name that is known may be away."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", AKID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    error = EndpointConnectionError(endpoint_url="https://bucket.s3.amazonaws.com/")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    assert not store.is_hopeless(error)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-wset-1")
    assert store.is_hopeless(error)
    with (
        pytest.raises(StoreError, match="no AWS region 'eu-wset-1': mend AWS_DEFAULT"),
        s3_client._sentences(PLACE, "list"),
    ):
        raise error


def test_wrong_keys(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said at once, and the key is in no message."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted-secret")
    monkeypatch.setattr(time, "sleep", lambda s: pytest.fail("It waits."))
    with pytest.raises(StoreError, match="keys") as error:
        listing(PLACE)
    assert "planted" not in str(error.value)


def test_no_keys(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said, with the variables that hold them."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(StoreError, match="There are no keys for s3://bucket/shelf: set AWS_ACCESS"):
        listing(PLACE)


def test_no_bucket(any_s3: str, tmp_path: Path) -> None:
    """Said by its name, when listing, sending and fetching."""
    nowhere = Location("nowhere", "x")
    (tmp_path / "x").write_bytes(b"x")
    with pytest.raises(StoreError, match="There is no bucket 'nowhere'"):
        listing(nowhere)
    with pytest.raises(StoreError, match="There is no bucket 'nowhere'"):
        send(tmp_path / "x", nowhere, patience_s=2)


@pytest.mark.parametrize("sent", [b"eno", b"on"])
def test_damaged_on_the_way(
    sent: bytes, s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other bytes, or fewer, are found out, and nothing of them is left."""
    send(_fill(tmp_path / "source") / "a.txt", PLACE / "a.txt")
    real = store.client()
    monkeypatch.setattr(
        real, "download_fileobj", lambda bucket, key, out, **how: out.write(sent) and None
    )
    what = "another checksum" if len(sent) == 3 else "2 of 3 bytes"
    with pytest.raises(StoreError, match=rf"s3://bucket/shelf/a.txt came damaged \({what}\)"):
        fetch(PLACE, tmp_path / "back")
    assert _names(tmp_path / "back") == set()


def test_names_that_leave_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused before anything is fetched."""
    wrong = store.RemoteFile("../evil", 1, "")
    with pytest.raises(StoreError, match="leaves the folder"):
        fetch(PLACE, tmp_path / "back", [wrong])
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    ("text", "bucket", "prefix"),
    [
        ("s3://b", "b", ""),
        ("s3://b/", "b", ""),
        ("S3://b/a/c/", "b", "a/c"),
        ("s3://b/a?x#y", "b", "a?x#y"),
    ],
)
def test_addresses(text: str, bucket: str, prefix: str) -> None:
    """A bucket, and a prefix without slashes at its ends."""
    assert Location.parse(text) == Location(bucket, prefix)


@pytest.mark.parametrize("text", ["s3://", "s3:///a", "http://b/a", "s3://key:secret@b/a"])
def test_addresses_that_are_none(text: str) -> None:
    """Refused."""
    with pytest.raises(UsageError, match="must be s3://bucket/prefix"):
        Location.parse(text)
