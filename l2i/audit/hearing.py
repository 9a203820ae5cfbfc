"""The pass of an audit over its clips: by this process, by many, and on where it was stopped.

Rows (`l2i.audit.scan`) lie in ``work/audits/<signature>`` until an audit is done. What a task of a
job hears is kept as a run under the audited one, too, from which an audit takes it over, wherever
that task was.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l2i.audit.cues import Palette
from l2i.audit.scan import Rows, files_of, scan
from l2i.data.split import spread
from l2i.explanation import ExplanationMethod, make_method
from l2i.recipes.opening.material import PartName
from l2i.recipes.opening.opened import Opened, open_finished, write_found
from l2i.run.artifacts import download
from l2i.run.progress import Progress
from l2i.run.search import Wanted, search_runs
from l2i.run.store import locate
from l2i.storage import atomic_path, atomic_write_text, disk_errors
from l2i.types import Clip

# Tags of a task's run, and the folder of its artifacts.
_PASS, _SHARE, _ROWS = "l2i.audit", "l2i.audit_share", "rows"
Share = tuple[int, int]
"""Which of how many, from 0."""


@dataclass
class Pass:
    """All clips of an audit, and what has been heard of them.

    Attributes
    ----------
    opened : Opened
    clips : list of Clip
    method : str
    way : ExplanationMethod
    palette : Palette
    signature : str
        Another pass of the same clips by the same method has the same.
    work : Path
        Where rows are kept.
    rows : int64 [N]
        Rows of the clips among the decoded ones.
    broken : dict of str to str
        Clips that cannot be read, and why.
    """

    opened: Opened
    clips: list[Clip]
    method: str
    way: ExplanationMethod
    palette: Palette
    signature: str
    work: Path
    rows: NDArray[np.int64]
    broken: dict[str, str]
    _own: str = "broken.json"

    @classmethod
    def begin(cls, opened: Opened, part: PartName, limit: int | None, method: str) -> Pass:
        """The pass of a part of the clips; nothing is heard yet."""
        clips = opened.material.clips(part)
        if limit is not None:
            clips = [clips[i] for i in spread(clips, limit)]
        name = method or opened.config.method.name
        way = make_method(name, opened.subject, opened.told())
        if not method and (faster := getattr(way, "for_many", "")):
            name, way = faster, make_method(faster, opened.subject, opened.told())
        signature = _signature(opened, name, clips)
        work = locate().root / "work" / "audits" / signature
        dictionary = opened.subject.parts.get("dictionary")
        palette = Palette(opened.subject.domain, dictionary, opened.device)
        rows = opened.material.rows(clips)
        return cls(opened, clips, name, way, palette, signature, work, rows, _known_broken(work))

    def read(self, numbers: Any) -> NDArray[np.float32]:
        """Waveforms [B, S] of some clips, by their numbers."""
        material = self.opened.material
        x = np.array(material.waves.array[self.rows[numbers]])
        if material.broken.keys() - self.broken.keys():
            # At once: the rows that lack them are kept next.
            self.broken |= material.broken
            with disk_errors(self.work):
                atomic_write_text(self.work / self._own, json.dumps(self.broken))
        return x

    def hear(self, progress: Progress, share: Share = (0, 1)) -> Rows:
        """The rows of a share of the clips, heard now or before."""
        # Tasks on one machine have one folder.
        self._own = f"broken-{share[0]}-of-{share[1]}.json"
        files = files_of(len(self.clips), self.work, share)
        if done := sum(end - start for path, start, end in files if path.exists()):
            progress.say(f"{done} clips were heard before.")
        total = sum(end - start for _, start, end in files)
        with progress.task("clips", total=total, unit="clip") as bar:
            return scan(
                self.opened.subject,
                self.way,
                self.palette,
                self.read,
                len(self.clips),
                self.work,
                bar.advance,
                share,
            )

    def take_over(self, progress: Progress) -> None:
        """Bring here what tasks of jobs have heard of these clips."""
        store = locate()
        files = files_of(len(self.clips), self.work)
        lacking = [path for path, _, _ in files if not path.exists()]
        if not lacking or not store.exists:
            return
        wanted = Wanted(status="FINISHED", tags={_PASS: self.signature})
        shares = search_runs(store, wanted, limit=10_000, kinds={"audit-share"})
        for run in shares:
            there = download(run, _ROWS)
            with disk_errors(self.work):
                # Before the rows: once these are here, nobody asks the task's run again.
                text = (there / "broken.json").read_text(encoding="utf-8")
                atomic_write_text(self.work / f"broken-{run.id}.json", text)
                for path in lacking:
                    if not path.exists() and (there / path.name).is_file():
                        with atomic_path(path) as fresh:
                            shutil.copyfile(there / path.name, fresh)
        self.broken |= _known_broken(self.work)
        if shares:
            progress.say(f"Took over what {len(shares)} tasks have heard.")


def _known_broken(folder: Path) -> dict[str, str]:
    broken: dict[str, str] = {}
    for path in sorted(folder.glob("broken*.json")):
        with suppress(OSError, ValueError):
            broken |= json.loads(path.read_text(encoding="utf-8"))
    return broken


def _signature(opened: Opened, method: str, clips: Sequence[Clip]) -> str:
    """A digest of all that the rows of a pass depend on."""
    columns = [field.name for field in fields(Rows)]
    who = opened.run.id or opened.run.tags["l2i.classifier_digest"]
    words = [columns, who, opened.material.digest, method, [clip.id for clip in clips]]
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()[:16]


def hear_share(
    word: str,
    progress: Progress,
    share: Share,
    *,
    data_dir: str | None = None,
    device: str = "auto",
    marks: Mapping[str, str] | None = None,
) -> str:
    """Hear a share of all clips for an audit of a finished run, by its own method.

    Parameters
    ----------
    word : str
        A run id, a run name, or ``latest``.
    progress : Progress
    share : (int, int)
        Which of how many, from 0.
    data_dir : str, optional
        Where the data lie now.
    device : str
    marks : mapping, optional
        Tags of the run that is made.

    Returns
    -------
    str
        The id of the run that has the share, made now or before.

    Raises
    ------
    UsageError
        There is no such run.
    StoreError
        Rows cannot be kept.
    """
    opened = open_finished(word, progress, data_dir=data_dir, device=device, stream=True)
    p = Pass.begin(opened, "all", None, "")
    own = {_PASS: p.signature, _SHARE: f"{share[0] + 1} of {share[1]}"}
    if done := search_runs(locate(), Wanted(status="FINISHED", tags=own)):
        progress.say("This share was heard before.")
        return done[0].id
    p.hear(progress, share)

    def write(folder: Path) -> None:
        (folder / _ROWS).mkdir()
        for path, _, _ in files_of(len(p.clips), p.work, share):
            shutil.copy2(path, folder / _ROWS)
        atomic_write_text(folder / _ROWS / "broken.json", json.dumps(p.broken))

    made = write_found(
        opened,
        "audit-share",
        {"share": own[_SHARE], "method": p.method},
        {},
        None,
        write,
        marks={**own, **(marks or {})},
    )
    return str(made["kept"])
