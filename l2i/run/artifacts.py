"""A run's artifacts, wherever they lie: listed, and brought here."""

from __future__ import annotations

from pathlib import Path

from l2i.errors import StoreError
from l2i.run.search import RunInfo
from l2i.run.store import Store, check_own, connect, local_path, locate, store_errors
from l2i.storage import is_s3, s3
from l2i.storage.patience import patience_s as patience

# How long somebody who waits for an artifact waits for an object store that is away.
_READING_S = 10.0


def list_artifacts(
    store: Store, run_id: str, uri: str, folder: str, patience_s: float | None = None
) -> list[str]:
    """Paths of the artifacts that lie directly in a folder of a run's; ``""``: in none.

    Parameters
    ----------
    store : Store
    run_id, uri : str
        The run, and where its artifacts are.
    folder : str
    patience_s : float, optional
        How long an S3-compatible store may be away; by default as ``L2I_PATIENCE`` says.

    Raises
    ------
    StoreError
        They cannot be listed.
    """
    above = f"{folder}/" if folder else ""
    if is_s3(uri):
        below = s3.listing(s3.Location.parse(uri) / folder, patience_s=patience_s)
        return sorted({above + file.name.partition("/")[0] for file in below})
    with store_errors(store, "read"):
        return sorted(a.path for a in connect(store).list_artifacts(run_id, folder or None))


def fetch_artifact(
    store: Store, run_id: str, uri: str, path: str, target: Path, patience_s: float | None = None
) -> Path:
    """Bring an artifact, a file or a folder with all it holds, to ``target/path``.

    Raises
    ------
    StoreError
        It cannot be fetched.
    """
    if is_s3(uri):
        folder, _, name = path.rpartition("/")
        above = s3.Location.parse(uri) / folder
        below = [
            file
            for file in s3.listing(above, patience_s=patience_s)
            if not name or file.name == name or file.name.startswith(f"{name}/")
        ]
        s3.fetch(above, target / folder, below, patience_s=patience_s)
        return target / path
    with store_errors(store, "read"):
        target.mkdir(parents=True, exist_ok=True)
        return Path(connect(store).download_artifacts(run_id, path, dst_path=str(target)))


def download(run: RunInfo, path: str) -> Path:
    """A local copy of one artifact of a run: a file, or a folder with all it holds, by its path
    relative to the run's artifacts, with ``/``.

    Returns
    -------
    Path
        Where artifacts are local already, the artifact itself: do not change it.

    Raises
    ------
    StoreError
        There is no such artifact, or it cannot be fetched.
    """
    store = locate()
    check_own(store, run.id, run.artifact_uri)
    base = local_path(run.artifact_uri)
    if base is not None:
        if (base / path).exists():
            return base / path
        if not base.is_dir():
            raise StoreError(
                f"The artifacts of run {run.name} ({run.id[:8]}) should lie in {base}, which is "
                "not there: the store was moved, copied or mounted elsewhere (which 'l2i runs "
                "relocate' mends), or nothing was written yet."
            )
    reading_s = min(_READING_S, patience())
    folder = path.rpartition("/")[0]
    there = list_artifacts(store, run.id, run.artifact_uri, folder, reading_s)
    if path and path not in there:
        raise StoreError(
            f"Run {run.name} ({run.id[:8]}) has no artifact {path!r}; "
            + (f"there are: {', '.join(there)}." if there else "it has none there.")
        )
    target = store.root / "work" / "downloads" / run.id
    return fetch_artifact(store, run.id, run.artifact_uri, path, target, reading_s)
