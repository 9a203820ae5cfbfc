"""``s3://bucket/prefix``: list, fetch, send. The only code that speaks S3.

Any S3-compatible store: ``AWS_ENDPOINT_URL_S3`` (or MLflow's ``MLFLOW_S3_ENDPOINT_URL``) names it,
the usual AWS variables, files and roles hold the keys. Many objects go at once, and a large one in
pieces; what is fetched is checked against what the store says of it; what fails is tried again
with growing pauses, since a store that is away for a minute is no reason to lose hours.

Over 300 lines: list, send and fetch, which rest on the same record.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

from l2i.errors import StoreError
from l2i.storage.files import atomic_path, disk_errors, is_inside
from l2i.storage.s3_client import FILES, PIECES, Location, ask, client, error_code, is_hopeless

__all__ = [
    "Location",
    "RemoteFile",
    "check",
    "exists",
    "fetch",
    "is_hopeless",
    "is_s3",
    "listing",
    "remove",
    "send",
    "write",
]

_PIECE = 8 << 20
_ANSWERS_S = 10.0
T = TypeVar("T")
# For the record of what was fetched, and of who is told.
_lock = threading.Lock()


def is_s3(place: str | Path) -> bool:
    """Whether a place is an ``s3://`` address.

    >>> is_s3("s3://bucket/a"), is_s3("/data"), is_s3(Path("s3:/bucket"))
    (True, False, False)
    """
    return isinstance(place, str) and place.lower().startswith("s3://")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """An object below a location: its name relative to it, bytes, and ETag."""

    name: str
    size: int
    etag: str


def listing(place: Location, *, patience_s: float | None = None) -> list[RemoteFile]:
    """All objects below a location, in the order of their names.

    Raises
    ------
    StoreError
        It cannot be listed: no such bucket, wrong keys, the store is away.
    """
    prefix = f"{place.prefix}/" if place.prefix else ""

    def items() -> list[dict[str, Any]]:
        pages = client().get_paginator("list_objects_v2")
        pages = pages.paginate(Bucket=place.bucket, Prefix=prefix)
        return [item for page in pages for item in page.get("Contents", ())]

    files = [
        RemoteFile(item["Key"].removeprefix(prefix), item["Size"], item.get("ETag", "").strip('"'))
        for item in ask(place, "list", items, patience_s)
    ]
    return sorted((f for f in files if f.name and not f.name.endswith("/")), key=lambda f: f.name)


@cache
def check(place: Location) -> None:
    """Ask once whether anything may be kept at a location; a store that is away says nothing.

    Raises
    ------
    StoreError
        There is no such bucket, or the store refuses the keys.
    """
    answers: list[StoreError] = []

    def ask_once() -> None:
        where = {"Bucket": place.bucket, "Prefix": f"{place.prefix}/", "MaxKeys": 1}
        try:
            ask(place, "list", lambda: client().list_objects_v2(**where), 0.0)
        except StoreError as error:
            answers.append(error)

    # A store that hangs is given up sooner than boto3 does.
    asking = threading.Thread(target=ask_once, daemon=True)
    asking.start()
    asking.join(_ANSWERS_S)
    for error in answers:
        why = error.__cause__
        # Keys that may write need not be allowed to list.
        if why is not None and is_hopeless(why) and error_code(why) not in ("AccessDenied", "403"):
            raise error


def exists(place: Location) -> bool:
    """Whether there is an object of this very name."""
    from botocore.exceptions import ClientError

    def head() -> bool:
        try:
            client().head_object(Bucket=place.bucket, Key=place.prefix)
        except ClientError as error:
            if error_code(error) in ("404", "NoSuchKey"):
                return False
            raise
        return True

    return ask(place, "read", head)


def write(place: Location, data: bytes) -> None:
    """Put one small object; it is there whole or not at all."""
    ask(
        place,
        "write",
        lambda: client().put_object(Bucket=place.bucket, Key=place.prefix, Body=data),
    )


def remove(place: Location, *, patience_s: float | None = None) -> int:
    """Remove all objects below a location; how many there were.

    Raises
    ------
    StoreError
        It cannot be listed, or these keys may not remove.
    """
    files = listing(place, patience_s=patience_s)
    for file in files:
        target = place / file.name
        delete = partial(client().delete_object, Bucket=target.bucket, Key=target.prefix)
        ask(target, "write", delete, patience_s)
    return len(files)


def _each(work: Callable[[T], bool], items: Iterable[T]) -> int:
    """How many are true, some worked on at a time; the first error ends what has not begun."""
    with ThreadPoolExecutor(FILES) as pool:
        return sum(pool.map(work, items))


def _in_pieces(size: int) -> Any:
    """How boto3 moves so many bytes: one piece needs no threads beside those of `_each`."""
    from boto3.s3.transfer import TransferConfig

    return TransferConfig(
        multipart_threshold=_PIECE,
        multipart_chunksize=_PIECE,
        max_concurrency=PIECES,
        use_threads=size > _PIECE,
        # The other one, taken where it is installed, knows neither our client nor our errors.
        preferred_transfer_client="classic",
    )


@contextmanager
def _unwrapped() -> Iterator[None]:
    """Raise what boto3's transfers hide: it says whether another try is worth while."""
    from botocore.exceptions import ClientError

    try:
        yield
    except Exception as error:
        last, before = getattr(error, "last_exception", None), error.__context__
        raise last or (before if isinstance(before, ClientError) else error) from None


def send(source: Path, place: Location, *, patience_s: float | None = None) -> int:
    """Send a file, or all that a folder holds, below a location.

    Objects of which the store has the same bytes already are left alone, so that sending again
    after a failure goes on where it stopped.

    Parameters
    ----------
    source : Path
    place : Location
        A file's own name in the store, or a folder's prefix.
    patience_s : float
        How long the store may be away; by default as ``L2I_PATIENCE`` says.

    Returns
    -------
    int
        Objects sent.

    Raises
    ------
    StoreError
        It could not be sent.
    """
    there: dict[str, RemoteFile] = {}
    files = [source]
    if source.is_dir():
        there = {f.name: f for f in listing(place, patience_s=patience_s)}
        files = sorted(p for p in source.rglob("*") if p.is_file())

    def one(path: Path) -> bool:
        name = path.relative_to(source).as_posix()
        target = place if path == source else place / name
        size, old = path.stat().st_size, there.get(name)
        changed = old is None or old.size != size or not _same(path, old.etag)

        def put() -> None:
            with _unwrapped():
                client().upload_file(
                    str(path), target.bucket, target.prefix, Config=_in_pieces(size)
                )

        if changed:
            ask(target, "write", put, patience_s)
        return changed

    return _each(one, files)


def _same(path: Path, etag: str) -> bool:
    """Whether a store would call these bytes by this ETag, had `send` sent them.

    It is their MD5; for a large file, sent in pieces, that of the pieces' MD5s, and their number.
    """
    md5 = partial(hashlib.md5, usedforsecurity=False)
    with path.open("rb") as file:
        if "-" not in etag:
            return hashlib.file_digest(file, md5).hexdigest() == etag
        sums = [md5(piece).digest() for piece in iter(partial(file.read, _PIECE), b"")]
    return f"{md5(b''.join(sums)).hexdigest()}-{len(sums)}" == etag


def fetch(
    place: Location,
    folder: Path,
    files: Sequence[RemoteFile] | None = None,
    *,
    patience_s: float | None = None,
    on_bytes: Callable[[int], None] | None = None,
) -> int:
    """Bring objects into a folder: those that are not there yet, some at a time.

    Size and, where the ETag is one, MD5 are checked before a file gets its name.

    Parameters
    ----------
    place : Location
    folder : Path
        Made.
    files : sequence of RemoteFile, optional
        As `listing` gives them; by default all.
    patience_s : float
        How long the store may be away; by default as ``L2I_PATIENCE`` says.
    on_bytes : callable, optional
        Called with the bytes done since the last call, those that were there included; fewer than
        none where something broke off and begins anew.

    Returns
    -------
    int
        Files fetched.

    Raises
    ------
    StoreError
        Something cannot be fetched or written, or a name would leave the folder.
    """
    wanted = listing(place, patience_s=patience_s) if files is None else list(files)
    for file in wanted:
        if not is_inside(file.name):
            raise StoreError(
                f"{place} has an object {file.name!r}, whose name leaves the folder: nothing was "
                "fetched."
            )

    def tell(n: int) -> None:
        if on_bytes is not None:
            with _lock:
                on_bytes(n)

    # By ETag, which the bytes of a large object alone do not tell.
    record = folder / ".l2i-fetched"
    known: dict[str, str] = {}
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if record.is_file():
            lines = record.read_text(encoding="utf-8", errors="replace").splitlines()
            # A line that a crash cut is no line.
            pairs = (line.split("\t", 1) for line in lines if "\t" in line)
            known = {name: etag for etag, name in pairs}

    def is_there(file: RemoteFile) -> bool:
        path = folder / file.name
        if not path.is_file() or path.stat().st_size != file.size:
            return False
        if file.name in known:
            return known[file.name] == file.etag
        # Fetched just before a crash, or put there by hand.
        return _same(path, file.etag)

    def one(file: RemoteFile) -> bool:
        if is_there(file):
            tell(file.size)
            return False
        target = place / file.name

        def get() -> None:
            with atomic_path(folder / file.name) as part:
                _download(target, file, part, tell)

        ask(target, "read", get, patience_s)
        with _lock, record.open("a", encoding="utf-8") as out:
            out.write(f"{file.etag}\t{file.name}\n")
        return True

    with disk_errors(folder):
        return _each(one, wanted)


def _download(place: Location, file: RemoteFile, part: Path, tell: Callable[[int], None]) -> None:
    done: list[int] = []

    def count(n: int) -> None:
        done.append(n)
        tell(n)

    try:
        with part.open("wb") as out, _unwrapped():
            client().download_fileobj(
                place.bucket, place.prefix, out, Config=_in_pieces(file.size), Callback=count
            )
    except BaseException:
        tell(-sum(done))
        raise
    size = part.stat().st_size
    # The ETag of an object sent in pieces is no MD5 of its bytes.
    sums = re.fullmatch("[0-9a-f]{32}", file.etag)
    if size != file.size or (sums and not _same(part, file.etag)):
        there = client().head_object(Bucket=place.bucket, Key=place.prefix)
        if there.get("ETag", "").strip('"') != file.etag:
            raise StoreError(f"{place} changed while it was read: give the same command again.")
        # Nor is that of one that a key of the user's encrypts.
        if size != file.size or there.get("ServerSideEncryption") in (None, "AES256"):
            what = "another checksum" if size == file.size else f"{size} of {file.size} bytes"
            raise StoreError(f"{place} came damaged ({what}); the same command fetches it again.")
