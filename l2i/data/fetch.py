"""Official sources, fetched once: resumed where they broke off, verified, unpacked safely.

Next to the target ``esc50`` a folder ``.esc50.download`` holds what is under way::

    ESC-50-master.zip.part        bytes so far
    ESC-50-master.zip.json        which file of the server's they are of
    ESC-50-master.zip             whole and verified, until it is unpacked
    ESC-50-master.zip.done        unpacked into
    contents/                     what will become the target, by one rename, at the very end

so that the target is either absent or a whole data set, and the same command goes on where the
last one stopped. Only this folder is ever written into; a target that is not empty is refused.

Over 300 lines: one transfer, with all the ways in which it breaks off.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from l2i import config
from l2i.data import DATASETS, open_dataset
from l2i.data.base import Card, Remote, listed
from l2i.data.places import data_folder
from l2i.errors import DataError
from l2i.storage import atomic_write_text, disk_errors, file_lock, format_bytes, safe_extract

if TYPE_CHECKING:
    import requests

__all__ = ["download", "fetch", "target_folder", "verify"]

# Told (file name, bytes done, bytes in all or None).
ByteProgress = Callable[[str, int, int | None], None]

# Small, because requests drops the block in which a transfer breaks off.
_BLOCK = 1 << 15
_TIMEOUT_S = (15, 60)  # To connect, and between two blocks.
_RETRIES = 6
_PAUSE_S = 1.0  # Doubled each time.
_LONGEST_PAUSE_S = 60.0


def target_folder(card: Card, data_dir: str | Path = "") -> Path:
    """Where `fetch` puts a data set: a folder of its name on the shelf `data_dir`."""
    return data_folder(data_dir) / card.folders[0]


def fetch(
    name: str,
    data_dir: str | Path = "",
    progress: ByteProgress | None = None,
    on_step: Callable[[str], None] | None = None,
) -> Path:
    """Fetch a data set from its official source.

    Parameters
    ----------
    name : str
        Its name in the registry.
    data_dir : path, optional
        The shelf it is put on; see `l2i.data.places.data_folder`.
    progress : callable, optional
        Told (file name, bytes done, bytes in all or None).
    on_step : callable, optional
        Told in words what begins now, and of pauses.

    Returns
    -------
    Path
        The folder, which `open_dataset` finds.

    Raises
    ------
    DataError
        It needs no fetching; the target is not empty; the server does not give it; what it gave
        is not what was published.
    StoreError
        The disk is full: what is there so far is kept, and gone on with.
    """
    card = DATASETS[name].card
    if not card.remotes:
        if card.name.startswith("demo"):
            raise DataError(f"The data set {card.name!r} is made on the spot: nothing to fetch.")
        raise DataError(f"The data set {card.name!r} has no source to fetch it from.")
    say = on_step or (lambda text: None)
    target = target_folder(card, data_dir)
    work = target.with_name(f".{target.name}.download")
    if target.is_dir() and any(target.iterdir()):
        raise DataError(
            f"{target} is not empty, and nothing in it is overwritten. If it holds {card.title}, "
            f"'l2i data check {card.name} --data-dir {target}' tells; if not, name another place "
            "with --data-dir."
        )
    if target.exists() and not target.is_dir():
        raise DataError(f"{target} is a file, where a folder is to be.")
    with (
        disk_errors(work),
        file_lock(
            target.with_name(f".{target.name}.lock"),
            on_wait=lambda: say("Another process is fetching it; waiting."),
        ),
    ):
        if target.is_dir() and any(target.iterdir()):
            return target  # By the process we waited for.
        work.mkdir(parents=True, exist_ok=True)
        contents = work / "contents"
        contents.mkdir(exist_ok=True)
        for remote in card.remotes:
            done = work / f"{remote.name}.done"
            if done.exists():
                continue
            say(f"Fetching {remote.url}")
            file = download(remote, work, progress, say)
            if remote.unpack:
                say(f"Unpacking {remote.name}")
                try:
                    safe_extract(file, contents)
                except DataError:
                    # It will not get better by being kept: the next try fetches it anew.
                    file.unlink()
                    raise
                atomic_write_text(done, "")
                file.unlink()
            else:
                os.replace(file, contents / remote.name)
                atomic_write_text(done, "")
        # Archives of repositories wrap their files in one folder.
        inside = list(contents.iterdir())
        whole = inside[0] if len(inside) == 1 and inside[0].is_dir() else contents
        say("Checking what was fetched")
        try:
            _complete(name, whole)
        except DataError as error:
            # Gigabytes are not thrown away over what may be mended by hand.
            raise DataError(
                f"What {card.homepage or card.remotes[0].url} gave is not {card.title}: {error} "
                f"It lies in {whole}; remove {work} to begin anew."
            ) from error
        if target.is_dir():
            target.rmdir()
        os.replace(whole, target)
        shutil.rmtree(work)
    return target


def _complete(name: str, folder: Path) -> None:
    """Refuse what was unpacked, unless the data set opens, and all its files are there."""
    data = open_dataset(config.Dataset(name=name, data_dir=str(folder)))
    if missing := data.check(decode=False).missing:
        raise DataError(
            f"What was fetched lacks {len(missing)} of {len(data.clips())} clips: "
            f"{listed(missing)}."
        )


def verify(path: Path, remote: Remote) -> None:
    """Compare a file with what is published of it.

    Raises
    ------
    DataError
        Its size or a checksum differs.
    """
    size = path.stat().st_size
    if remote.size is not None and size != remote.size:
        raise DataError(f"{remote.url} gave {size} bytes, not the {remote.size} published.")
    blob = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    for kind, wanted, digest in (
        ("md5", remote.md5, hashlib.md5(usedforsecurity=False)),
        ("sha256", remote.sha256, hashlib.sha256()),
        ("git blob", remote.git_blob, blob),
    ):
        if not wanted:
            continue
        with open(path, "rb") as file:
            got = hashlib.file_digest(file, digest.copy).hexdigest()
        if got != wanted.lower():
            raise DataError(
                f"{remote.url} gave a file whose {kind} is {got}, not the published {wanted}. It "
                "was removed; if it happens again, the source has changed."
            )


class _Again(Exception):
    """The transfer broke off in a way that may pass; `after_s` is what the server asked for."""

    def __init__(self, why: str, after_s: float = 0.0) -> None:
        super().__init__(why)
        self.after_s = after_s


def download(
    remote: Remote,
    folder: Path,
    progress: ByteProgress | None = None,
    say: Callable[[str], None] = lambda text: None,
    pause_s: float = _PAUSE_S,
) -> Path:
    """Fetch one file into a folder, going on from what is there, and verify it.

    Raises
    ------
    DataError
        The server refuses, keeps breaking off (six times without a byte between), or gives
        another file than was published; in the last case it is removed.
    """
    import requests

    path = folder / remote.name
    if path.exists():
        return path
    part, about = folder / f"{remote.name}.part", folder / f"{remote.name}.json"
    failures = 0
    with requests.Session() as session:
        # Compressed on the way, a file has no bytes to go on from.
        session.headers["Accept-Encoding"] = "identity"
        while True:
            before = part.stat().st_size if part.exists() else 0
            try:
                _transfer(session, remote, part, about, progress)
                break
            except (
                _Again,
                requests.ConnectionError,
                requests.Timeout,
                requests.exceptions.ChunkedEncodingError,
            ) as error:
                after = part.stat().st_size if part.exists() else 0
                failures = 1 if after > before else failures + 1
                if failures > _RETRIES:
                    raise DataError(
                        f"{remote.url} could not be fetched: {_why(error)}. What came so far "
                        "is kept; run the same command again to go on."
                    ) from error
                pause = min(pause_s * 2 ** (failures - 1), _LONGEST_PAUSE_S)
                if isinstance(error, _Again):
                    pause = max(pause, min(error.after_s, _LONGEST_PAUSE_S))
                say(f"{_why(error)}; trying again in {pause:.0f} s, from {format_bytes(after)}")
                time.sleep(pause)
            except requests.RequestException as error:
                raise DataError(f"{remote.url} could not be fetched: {_why(error)}.") from error
    try:
        verify(part, remote)
    except DataError:
        part.unlink()
        about.unlink(missing_ok=True)
        raise
    os.replace(part, path)
    about.unlink(missing_ok=True)
    return path


def _why(error: Exception) -> str:
    # requests nests the causes; the innermost says it in words.
    inner: BaseException = error
    while True:
        reason = getattr(inner, "reason", None)
        following = reason if isinstance(reason, BaseException) else inner.__cause__
        if following is None and inner.args and isinstance(inner.args[0], BaseException):
            following = inner.args[0]
        if following is None:
            break
        inner = following
    text = str(inner.args[-1]) if isinstance(inner, OSError) and inner.args else str(inner)
    return text.rstrip(".") or type(inner).__name__


def _transfer(
    session: requests.Session,
    remote: Remote,
    part: Path,
    about: Path,
    progress: ByteProgress | None,
) -> None:
    """One request: the rest of the file, or all of it where the server cannot give the rest."""
    have = part.stat().st_size if part.exists() else 0
    known = _recall(about, remote.url)
    if have and known is None:
        # Bytes of we know not what.
        part.unlink()
        have = 0
    headers = {}
    if have and known is not None:
        headers["Range"] = f"bytes={have}-"
        if known.get("validator"):
            headers["If-Range"] = known["validator"]
    with session.get(remote.url, headers=headers, stream=True, timeout=_TIMEOUT_S) as answer:
        status = answer.status_code
        if status in (408, 425, 429) or status >= 500:
            pause = answer.headers.get("Retry-After", "")
            raise _Again(
                f"the server answered {status} {answer.reason}",
                float(pause) if pause.isdigit() else 0.0,
            )
        start, total = _range(answer.headers.get("Content-Range", ""))
        if status == 416 and total == have and known is not None:
            return  # Nothing is left to send: we have all.
        before = known.get("total") if known else None
        other = start != have or (None not in (before, total) and before != total)
        if status == 416 or (status == 206 and other):
            part.unlink(missing_ok=True)
            about.unlink(missing_ok=True)
            raise _Again("the file has changed on the server")
        if status not in (200, 206):
            raise DataError(
                f"{remote.url} could not be fetched: the server answered {status} {answer.reason}."
            )
        if status == 200:
            have, length = 0, answer.headers.get("Content-Length", "")
            total = int(length) if length.isdigit() else None
            # A weak validator vouches for the meaning, not for the bytes.
            tag = answer.headers.get("ETag", "")
            validator = tag if tag.startswith('"') else answer.headers.get("Last-Modified", "")
            part.unlink(missing_ok=True)
            document = {"url": remote.url, "validator": validator, "total": total}
            atomic_write_text(about, json.dumps(document))
        with open(part, "ab") as file:
            for block in answer.iter_content(_BLOCK):
                file.write(block)
                have += len(block)
                if progress is not None:
                    progress(remote.name, have, total)
            file.flush()
            os.fsync(file.fileno())
        if total is not None and have < total:
            raise _Again(f"the server sent {have} of {total} bytes")
        if total is not None and have > total:
            part.unlink()
            raise _Again(f"the server sent {have} bytes where it had promised {total}")


def _recall(about: Path, url: str) -> dict[str, Any] | None:
    try:
        known = json.loads(about.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return known if isinstance(known, dict) and known.get("url") == url else None


def _range(content_range: str) -> tuple[int | None, int | None]:
    """First byte and bytes in all, as "bytes 100-199/200" tells them."""
    start = content_range.removeprefix("bytes ").partition("-")[0]
    total = content_range.rpartition("/")[2]
    return int(start) if start.isdigit() else None, int(total) if total.isdigit() else None
