"""``s3://bucket/prefix``: list, fetch, send. The only code that speaks S3.

Any S3-compatible store: ``AWS_ENDPOINT_URL_S3`` (or MLflow's ``MLFLOW_S3_ENDPOINT_URL``) names it,
the usual AWS variables, files and roles hold the keys. Many objects go at once, and a large one in
pieces; what is fetched is checked against what the store says of it; what fails is tried again
with growing pauses, since a store that is away for a minute is no reason to lose hours.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from l2i.errors import StoreError, UsageError
from l2i.storage.files import atomic_path, disk_errors, is_inside
from l2i.storage.patience import patiently

__all__ = [
    "Location",
    "RemoteFile",
    "exists",
    "fetch",
    "is_hopeless",
    "is_s3",
    "listing",
    "read",
    "remove",
    "send",
    "write",
]

# At once: files, and pieces of a large one.
_FILES = 8
_PIECES = 2
_PIECE = 8 << 20
T = TypeVar("T")


def is_s3(place: str | Path) -> bool:
    """Whether a place is an ``s3://`` address.

    >>> is_s3("s3://bucket/a"), is_s3("/data"), is_s3(Path("s3:/bucket"))
    (True, False, False)
    """
    return isinstance(place, str) and place.lower().startswith("s3://")


@dataclass(frozen=True, slots=True)
class Location:
    """A bucket and a prefix in it, without slashes at its ends.

    >>> str(Location.parse("s3://bucket/a/b/"))
    's3://bucket/a/b'
    >>> Location.parse("s3://bucket") / "c"
    Location(bucket='bucket', prefix='c')
    """

    bucket: str
    prefix: str = ""

    @classmethod
    def parse(cls, text: str) -> Location:
        """Read an address.

        Raises
        ------
        UsageError
            It names no bucket.
        """
        parts = urlsplit(text)
        if parts.scheme.lower() != "s3" or not parts.netloc or "@" in parts.netloc:
            # Without what stands before an @: it may be a key.
            shown = text if "@" not in text else f"s3://***@{text.rpartition('@')[2]}"
            raise UsageError(f"{shown!r} is no S3 address: it must be s3://bucket/prefix.")
        # Not parts.path, which would lose what follows a '?' or a '#', both fine in a key.
        rest = text.split("://", 1)[1].partition("/")[2]
        return cls(parts.netloc, rest.strip("/"))

    def __truediv__(self, name: str) -> Location:
        return Location(self.bucket, f"{self.prefix}/{name}" if self.prefix else name)

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """An object below a location: its name relative to it, bytes, and ETag."""

    name: str
    size: int
    etag: str


_lock = threading.Lock()
_clients: dict[tuple[str, ...], Any] = {}


_SETTINGS = (
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"),
    *("AWS_DEFAULT_REGION", "AWS_REGION", "AWS_ENDPOINT_URL"),
    *("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"),
)


def _check_keys(session: Any) -> None:
    """Find the keys; a program that is to print them may be absent, or print something else."""
    from botocore.exceptions import BotoCoreError

    try:
        session.get_credentials()
    except BotoCoreError:
        raise  # Some are an OSError or a ValueError, too.
    except (OSError, ValueError) as error:
        raise StoreError(
            f"AWS's keys cannot be found ({_first_line(error)}): mend the credential_process of "
            "this profile."
        ) from error


def _client() -> Any:
    """A client for what the environment says now; clients may be shared by threads."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import InvalidRegionError

    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("MLFLOW_S3_ENDPOINT_URL")
    key = (endpoint or "", *(os.environ.get(name, "") for name in _SETTINGS))
    with _lock:
        if key in _clients:
            return _clients[key]
        session = boto3.session.Session()
        _check_keys(session)
        try:
            _clients[key] = session.client(
                "s3",
                endpoint_url=endpoint or None,
                region_name=os.environ.get("AWS_DEFAULT_REGION")
                or os.environ.get("AWS_REGION")
                or ("us-east-1" if endpoint else None),
                config=Config(
                    connect_timeout=10,
                    read_timeout=60,
                    # Ours wait longer, and know what is worth another try.
                    retries={"mode": "standard", "total_max_attempts": 2},
                    max_pool_connections=_FILES * _PIECES,
                    # Stores that are not Amazon's stumble over checksums that newer clients add.
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                ),
            )
        except InvalidRegionError as error:
            raise StoreError(f"{_first_line(error)}: mend AWS_DEFAULT_REGION.") from error
        except ValueError as error:
            found = f"{endpoint!r} is" if endpoint else f"{_first_line(error)};"
            raise StoreError(
                f"{found} no address of an S3-compatible store: mend AWS_ENDPOINT_URL_S3, which "
                "begins with http:// or https://."
            ) from error
        return _clients[key]


def _code(error: BaseException) -> str:
    response = getattr(error, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def is_hopeless(error: BaseException) -> bool:
    """Whether an error of S3's, or of AWS's settings, is one that no waiting mends."""
    from botocore.exceptions import BotoCoreError, ClientError

    return isinstance(error, BotoCoreError | ClientError) and not _may_pass(error)


def _may_pass(error: BaseException) -> bool:
    """Whether another try may end otherwise: the network, or the store, is at fault."""
    from botocore import exceptions as e

    if isinstance(error, e.ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        again = status in (408, 409, 429) or _code(error) == "RequestTimeout"
        return again or not 400 <= status < 500
    if isinstance(error, e.EndpointConnectionError) and _unknown_region():
        return False
    return isinstance(
        error,
        e.HTTPClientError
        | e.ConnectionError
        | e.IncompleteReadError
        | e.MetadataRetrievalError
        | ConnectionError,
    )


def _unknown_region() -> str:
    """The region that Amazon's address was made of, where Amazon has none of that name."""
    import boto3

    meta = _client().meta
    session = boto3.session.Session()
    if "amazonaws.com" not in meta.endpoint_url or any(
        meta.region_name in session.get_available_regions("s3", partition)
        for partition in session.get_available_partitions()
    ):
        return ""
    return str(meta.region_name)


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".: ") or type(error).__name__


@contextmanager
def _sentences(place: Location, doing: str) -> Iterator[None]:
    """Turn what boto3 raises into one sentence, without keys or signatures."""
    from botocore import exceptions as e

    try:
        yield
    except e.ClientError as error:
        code = _code(error)
        if code in ("NoSuchBucket",) or (code == "404" and not place.prefix):
            text = f"There is no bucket {place.bucket!r}: make it, or mend the address."
        elif code in ("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidClientTokenId"):
            text = (
                f"The store refuses the keys for {place}: mend AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE."
            )
        elif code in ("AccessDenied", "403", "AllAccessDisabled"):
            text = f"These keys may not {doing} {place}: ask who owns the bucket for the right to."
        elif code in ("ExpiredToken", "RequestExpired"):
            text = f"The keys for {place} have expired: renew them."
        elif code in ("PreconditionFailed", "412"):
            text = f"{place} changed while it was read: give the same command again."
        elif code in ("NoSuchKey", "404"):
            text = f"There is nothing at {place}."
        else:
            text = f"{place} could not be reached to {doing} it ({code or 'no reason given'})."
        raise StoreError(text) from error
    except (e.NoCredentialsError, e.PartialCredentialsError) as error:
        raise StoreError(
            f"There are no keys for {place}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
            "AWS_PROFILE."
        ) from error
    except e.ProfileNotFound as error:
        raise StoreError(f"{error}: mend AWS_PROFILE.") from error
    except (e.SSOError, e.TokenRetrievalError, e.CredentialRetrievalError) as error:
        raise StoreError(
            f"There are no valid keys for {place} ({_first_line(error)}): log in again, or mend "
            "how AWS_PROFILE gets its keys."
        ) from error
    except (e.ConfigParseError, e.ConfigNotFound, e.InvalidConfigError) as error:
        raise StoreError(f"{_first_line(error)}: mend this file of AWS's settings.") from error
    except e.BotoCoreError as error:
        if isinstance(error, e.EndpointConnectionError) and (region := _unknown_region()):
            raise StoreError(
                f"There is no AWS region {region!r}: mend AWS_DEFAULT_REGION, or the profile's."
            ) from error
        first = _first_line(error)
        raise StoreError(f"{place} could not be reached to {doing} it ({first}).") from error


def _ask(place: Location, doing: str, work: Callable[[], T], patience_s: float | None) -> T:
    """Do it, and again while the store is away; what goes wrong is one sentence."""
    with _sentences(place, doing):
        return patiently(
            work,
            _may_pass,
            lambda error: f"The store of s3://{place.bucket} is away ({_first_line(error)})",
            patience_s,
        )


def listing(place: Location, *, patience_s: float | None = None) -> list[RemoteFile]:
    """All objects below a location, in the order of their names.

    Raises
    ------
    StoreError
        It cannot be listed: no such bucket, wrong keys, the store is away.
    """
    prefix = f"{place.prefix}/" if place.prefix else ""

    def items() -> list[dict[str, Any]]:
        pages = _client().get_paginator("list_objects_v2")
        pages = pages.paginate(Bucket=place.bucket, Prefix=prefix)
        return [item for page in pages for item in page.get("Contents", ())]

    files = [
        RemoteFile(item["Key"].removeprefix(prefix), item["Size"], item.get("ETag", "").strip('"'))
        for item in _ask(place, "list", items, patience_s)
    ]
    return sorted((f for f in files if f.name and not f.name.endswith("/")), key=lambda f: f.name)


def read(place: Location, *, patience_s: float | None = None) -> bytes:
    """The bytes of one small object.

    Raises
    ------
    StoreError
        There is none, or it cannot be fetched.
    """

    def get() -> bytes:
        return _client().get_object(Bucket=place.bucket, Key=place.prefix)["Body"].read()

    return _ask(place, "read", get, patience_s)


def exists(place: Location, *, patience_s: float | None = None) -> bool:
    """Whether there is an object of this very name."""
    from botocore.exceptions import ClientError

    def head() -> bool:
        try:
            _client().head_object(Bucket=place.bucket, Key=place.prefix)
        except ClientError as error:
            if _code(error) in ("404", "NoSuchKey"):
                return False
            raise
        return True

    return _ask(place, "read", head, patience_s)


def write(place: Location, data: bytes, *, patience_s: float | None = None) -> None:
    """Put one small object; it is there whole or not at all."""

    def put() -> None:
        _client().put_object(Bucket=place.bucket, Key=place.prefix, Body=data)

    _ask(place, "write", put, patience_s)


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
        delete = partial(_client().delete_object, Bucket=target.bucket, Key=target.prefix)
        _ask(target, "write", delete, patience_s)
    return len(files)


def _each(work: Callable[[T], bool], items: Iterable[T]) -> int:
    """How many are true, some worked on at a time; the first error ends what has not begun."""
    with ThreadPoolExecutor(_FILES) as pool:
        return sum(pool.map(work, items))


def _one_at_a_time(on_bytes: Callable[[int], None] | None) -> Callable[[int], None]:
    lock = threading.Lock()

    def tell(n: int) -> None:
        if on_bytes is not None:
            with lock:
                on_bytes(n)

    return tell


def _in_pieces(size: int) -> Any:
    """How boto3 moves so many bytes: one piece needs no threads beside those of `_each`."""
    from boto3.s3.transfer import TransferConfig

    return TransferConfig(
        multipart_threshold=_PIECE,
        multipart_chunksize=_PIECE,
        max_concurrency=_PIECES,
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


def send(
    source: Path,
    place: Location,
    *,
    patience_s: float | None = None,
    on_bytes: Callable[[int], None] | None = None,
) -> int:
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
    on_bytes : callable, optional
        Called with the bytes done since the last call.

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
    tell = _one_at_a_time(on_bytes)

    def one(path: Path) -> bool:
        name = path.relative_to(source).as_posix()
        target = place if path == source else place / name
        size, old = path.stat().st_size, there.get(name)
        changed = old is None or old.size != size or not _same(path, old.etag)

        def put() -> None:
            with _unwrapped():
                _client().upload_file(
                    str(path), target.bucket, target.prefix, Config=_in_pieces(size)
                )

        if changed:
            _ask(target, "write", put, patience_s)
        tell(size)
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
    tell = _one_at_a_time(on_bytes)
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

        _ask(target, "read", get, patience_s)
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
            _client().download_fileobj(
                place.bucket, place.prefix, out, Config=_in_pieces(file.size), Callback=count
            )
    except BaseException:
        tell(-sum(done))
        raise
    size = part.stat().st_size
    # The ETag of an object sent in pieces is no MD5 of its bytes.
    sums = re.fullmatch("[0-9a-f]{32}", file.etag)
    if size != file.size or (sums and not _same(part, file.etag)):
        there = _client().head_object(Bucket=place.bucket, Key=place.prefix)
        if there.get("ETag", "").strip('"') != file.etag:
            raise StoreError(f"{place} changed while it was read: give the same command again.")
        # Nor is that of one that a key of the user's encrypts.
        if size != file.size or there.get("ServerSideEncryption") in (None, "AES256"):
            what = "another checksum" if size == file.size else f"{size} of {file.size} bytes"
            raise StoreError(f"{place} came damaged ({what}); the same command fetches it again.")
