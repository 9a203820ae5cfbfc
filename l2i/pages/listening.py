"""``index.html``: clips to listen to, with what was said of them.

The words and figures are those of ``explanations.json``, in one element of JSON; the sounds and
pictures of each clip are in one of its own, which is read when the clip is looked at. Where they
are too many for one page, they lie beside it, in a script `BESIDE` in each clip's folder: that is
what a page from a disk may ask for.

Over 300 lines: one page, and how it stays within its size.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l2i.pages.page import (
    MAX_BYTES,
    Figure,
    as_json,
    data_block,
    escape,
    figures_explained,
    figures_listed,
    write_page,
)
from l2i.pages.pictures import frequency_ticks
from l2i.pages.sound import flac, loudness, mp3, mp3_bytes, mp3_kbps, rounded
from l2i.storage import atomic_write_text

PARTS = ("original", "explanation", "removal")
_TITLED = tuple((name, name) for name in PARTS)
BESIDE = "page.js"
"""What a clip's folder holds for a page that has not the room for its sounds and pictures."""

# Where rounding is not enough, tried in this order: level of MP3, and whether components have
# sounds.
_SMALLER = ((0, True), (1, True), (2, True), (2, False))
_NOT_ALONE = ", and components cannot be heard alone"
_SMALL = "To keep this page small, sounds are"
_BESIDE = "The sound files lie beside it, in a folder for each clip."
_ON_DEMAND = (
    "Sounds are lossless; they lie beside this page and are loaded when a clip is chosen: keep the "
    "folder as a whole."
)
_LEVELS = (
    "All sounds of a clip have one common gain, so that their levels can be compared, unless “same "
    "loudness” is on. Notes and ratings stay in this browser."
)
_INTRO = "What the classifier heard, what made it say so, and what is left without that."
# For the template, its style and script.
_OWN = 56 * 1024


@dataclass(frozen=True, slots=True)
class Media:
    """What is heard and seen of one clip.

    Attributes
    ----------
    sample_rate : int
        Hz.
    duration_s : float
    sounds : mapping of str to bytes
        FLAC, all of one gain: ``original``, ``explanation``, ``removal``, and by their numbers
        the components that can be heard alone.
    pictures : mapping of str to bytes
        PNG: spectrograms under the names of the three sounds; ``mask``, and by their numbers the
        masks of single components.
    forgotten : bool
        There were sounds and pictures, which no page can have; see `MediaList`.
    levels : mapping of str to (float, float)
        Root mean square and peak of the sounds that are no component's, 1 being full scale.
    """

    sample_rate: int
    duration_s: float
    sounds: Mapping[str, bytes]
    pictures: Mapping[str, bytes]
    forgotten: bool = False
    levels: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        sample_rate: int,
        sounds: Mapping[str, NDArray[np.float32]],
        pictures: Mapping[str, bytes],
        rates: Mapping[str, int] | None = None,
    ) -> Media:
        """From sounds [S] in [-1, 1] of one length; `rates` are those that differ."""
        hz = dict.fromkeys(sounds, sample_rate) | dict(rates or {})
        return cls(
            sample_rate,
            max((len(x) / hz[name] for name, x in sounds.items()), default=0.0),
            {name: flac(x, hz[name]) for name, x in sounds.items()},
            pictures,
            levels={name: loudness(x) for name, x in sounds.items() if not name.isdecimal()},
        )


class MediaList(list[Media]):
    """Media for one page, those of thousands of clips if need be, in no more memory than it takes.

    The first clips have precedence on a page, and each takes a certain room however small its
    sounds are made. When that of the clips so far is more than a page may have, the next ones will
    not be on it: their sounds and pictures are forgotten at once.

    Parameters
    ----------
    max_bytes : int
        The page's size at most.
    beside : Path, optional
        The page's folder. When it has no room for all of them, they are written into the clips'
        folders within this one, as they are.

    Attributes
    ----------
    lies_beside : bool
        Whether they are.
    """

    def __init__(self, max_bytes: int = MAX_BYTES, beside: Path | None = None) -> None:
        super().__init__()
        self._room = max_bytes
        self._beside = beside
        self._folders: list[str] = []
        self._written = 0
        self.lies_beside = False

    @property
    def folders(self) -> list[str]:
        """Where each clip's lie, relative to the page, where they lie beside it."""
        return [f"{name}/" if name else "" for name in self._folders if self.lies_beside]

    def append(self, media: Media, folder: str = "") -> None:
        """Put a clip's behind those there are; `folder` is the clip's, within `beside`."""
        if self._beside is not None:
            self._folders.append(folder)
            self._room -= _total(media.sounds) + _total(media.pictures)
            (self._beside / folder / BESIDE).unlink(missing_ok=True)  # An earlier page's.
            super().append(media)
            if self._room < 0:
                self._put_beside()
            return
        self._room -= _least_bytes(media)
        if self._room < 0:
            media = replace(media, sounds={}, pictures={}, forgotten=True)
        super().append(media)

    def _put_beside(self) -> None:
        self.lies_beside = True
        assert self._beside is not None
        folders = self.folders[self._written :]
        for number, folder in enumerate(folders, start=self._written):
            media = self[number]
            (self._beside / folder).mkdir(exist_ok=True)
            both = f"{as_json(folder)},{as_json(_encoded(media))}"
            atomic_write_text(self._beside / folder / BESIDE, f"arrive({both})\n")
            self[number] = replace(media, sounds={}, pictures={}, forgotten=True)
        self._written = len(self)


def _base64_bytes(n: int) -> int:
    """What a file of `n` bytes takes, its name and quotes included."""
    return 4 * -(-n // 3) + 24


def _total(files: Mapping[str, bytes]) -> int:
    return sum(_base64_bytes(len(content)) for content in files.values())


def _mp3_total(media: Media, level: int, sounds: int) -> int:
    return sounds * _base64_bytes(mp3_bytes(media.sample_rate, media.duration_s, level))


def _least_bytes(media: Media) -> int:
    """What `_fit` counts for a clip at the least: sounds that are lossless, or the smallest."""
    level, _ = _SMALLER[-1]
    sounds = min(_total(media.sounds), _mp3_total(media, level, len(PARTS)))
    return _total(media.pictures) + sounds


def _fit(media: Sequence[Media], room: int) -> tuple[list[dict[str, bytes]], int, str]:
    """The sounds of each clip, all of the page within `room` bytes of base64; how many clips keep
    sounds and pictures; and a sentence on what was done."""
    whole = [dict(m.sounds) for m in media]
    seen = [_total(m.pictures) for m in media]
    forgotten = any(m.forgotten for m in media)
    if not forgotten and sum(seen) + sum(map(_total, whole)) <= room:
        return whole, len(media), "Sounds are lossless."

    if not forgotten and (fitted := _fit_rounded(whole, room - sum(seen))):
        sounds, note = fitted
        return sounds, len(media), f"{_SMALL} rounded to 12 bits{note}. {_BESIDE}"

    def bounds(level: int, components: bool) -> list[int]:
        return [
            room + 1
            if m.forgotten
            else pictures + _mp3_total(m, level, len(m.sounds) if components else len(PARTS))
            for m, pictures in zip(media, seen, strict=True)
        ]

    for level, components in _SMALLER:
        each = bounds(level, components)
        if sum(each) <= room:
            break
    kept = sum(total <= room for total in accumulate(each))

    wanted = [
        (i, name)
        for i, sounds in enumerate(whole[:kept])
        for name in sounds
        if components or name in PARTS
    ]
    # The encoder lets go of Python's lock.
    with ThreadPoolExecutor() as pool:
        smaller = list(pool.map(lambda key: mp3(whole[key[0]][key[1]], level), wanted))
    smaller_sounds: list[dict[str, bytes]] = [{} for _ in media]
    for (i, name), encoded in zip(wanted, smaller, strict=True):
        smaller_sounds[i][name] = encoded
    rates = sorted({mp3_kbps(m.sample_rate, level) for m in media})
    note = f"{_SMALL} MP3 of {' and '.join(map(str, rates))} kbit/s"
    if not components:
        note += _NOT_ALONE
    if kept < len(media):
        note += f"; sounds and pictures of the last {len(media) - kept} clips are not in it"
    return smaller_sounds, kept, f"{note}. {_BESIDE}"


def _fit_rounded(
    whole: Sequence[Mapping[str, bytes]], room: int
) -> tuple[list[dict[str, bytes]], str] | None:
    """The sounds of each clip rounded, without its components' if there is no room for these, and
    what is to be said of that; None where there is room for neither."""
    parts, left = _rounded(whole, room, of_components=False)
    if left < 0:
        return None
    components, left = _rounded(whole, left, of_components=True)
    if left < 0:
        return parts, _NOT_ALONE
    return [p | c for p, c in zip(parts, components, strict=True)], ""


def _rounded(
    whole: Sequence[Mapping[str, bytes]], room: int, *, of_components: bool
) -> tuple[list[dict[str, bytes]], int]:
    """The parts of each clip, or its components, rounded; and what is left of the room. Where that
    is less than nothing there may be more of them."""
    encoded: list[dict[str, bytes]] = [{} for _ in whole]
    # The encoder lets go of Python's lock.
    with ThreadPoolExecutor() as pool:
        for sounds, own in zip(whole, encoded, strict=True):
            names = [name for name in sounds if of_components != (name in PARTS)]
            smaller = pool.map(rounded, [sounds[name] for name in names])
            own.update(zip(names, smaller, strict=True))
            room -= _total(own)
            if room < 0:
                break
    return encoded, room


def write_listening_page(
    path: Path,
    clips: Sequence[Mapping[str, Any]],
    media: Sequence[Media],
    *,
    title: str,
    max_bytes: int = MAX_BYTES,
    parts: Sequence[tuple[str, str]] = _TITLED,
    summary: Sequence[Figure] = (),
    intro: str = _INTRO,
    noun: str = "clips",
) -> None:
    """Write the page, whole or not at all.

    Parameters
    ----------
    path : Path
        ``.../index.html``.
    clips : sequence of mappings
        What ``explanations.json`` holds of each; ``name`` is what the clip is called.
    media : sequence of Media
        The same clips' sounds and pictures.
    title : str
    max_bytes : int
        Beyond it, sounds are rounded, and components lose theirs if need be; if that is too much
        still, sounds become MP3 of ever lower bit rates; then components lose their sounds; then
        the last clips do. The page says so.
    parts : sequence of (str, str)
        Names in `media` of the sounds that one changes between, and what they are called; the
        first is the one that the others are parts of.
    summary : sequence of Figure
        The run's main figures.
    intro : str
        What one hears, in a sentence.
    noun : str
        What is listed.
    """
    facts: dict[str, Any] = {
        "ticks": frequency_ticks(media[0].sample_rate) if media else [],
        "clips": list(clips),
        "parts": [list(part) for part in parts],
        "noun": noun,
    }
    listed = f'<ul id="run">{figures_listed(summary)}</ul>{figures_explained(summary)}'
    fields = {
        "intro": escape(intro),
        "summary": listed if summary else "",
        "levels": escape(_LEVELS) if parts else "",
    }
    if isinstance(media, MediaList) and media.lies_beside:
        block = data_block("facts", {**facts, "beside": media.folders})
        own = {"data": block, "sound": _ON_DEMAND}
        write_page(path, "listening", title, {**fields, **own}, beside=True)
        return
    blocks = [data_block("facts", facts)]
    used = _OWN + len(blocks[0]) + 400 * len(media)
    sounds, kept, note = _fit(media, max(0, max_bytes - used))
    for number, (heard, m) in enumerate(zip(sounds, media, strict=True)):
        shown = replace(m, sounds=heard, pictures=m.pictures if number < kept else {})
        blocks.append(data_block(f"media-{number}", _encoded(shown)))
    own = {"data": "\n".join(blocks), "sound": escape(note)}
    write_page(path, "listening", title, {**fields, **own})


def _encoded(media: Media) -> dict[str, Any]:
    """As the page has it."""
    return {
        "levels": dict(media.levels),
        **{
            kind: {name: base64.b64encode(data).decode("ascii") for name, data in files.items()}
            for kind, files in (("sounds", media.sounds), ("pictures", media.pictures))
        },
    }
