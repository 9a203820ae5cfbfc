"""``index.html``: clips to listen to, with what was said of them.

The words and figures are those of ``explanations.json``, in one element of JSON; the sounds and
pictures of each clip are in one of its own, which is read when the clip is looked at.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

from l2i.pages.page import MAX_BYTES, data_block, escape, write_page
from l2i.pages.pictures import frequency_ticks
from l2i.pages.sound import mp3, mp3_bytes, mp3_kbps, rounded

__all__ = ["PARTS", "Media", "MediaList", "write_listening_page"]

PARTS = ("original", "explanation", "removal")

# Where rounding is not enough, tried in this order: level of MP3, and whether components have
# sounds.
_SMALLER = ((0, True), (1, True), (2, True), (2, False))
_NOT_ALONE = ", and components cannot be heard alone"
_SMALL = "To keep this page small, sounds are"
_BESIDE = "The sound files lie beside it, in a folder for each clip."
# For the template, its style and script.
_OWN = 48 * 1024


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
    """

    sample_rate: int
    duration_s: float
    sounds: Mapping[str, bytes]
    pictures: Mapping[str, bytes]
    forgotten: bool = False


class MediaList(list[Media]):
    """Media for one page, those of thousands of clips if need be, in no more memory than it takes.

    The first clips have precedence on a page, and each takes a certain room however small its
    sounds are made. When that of the clips so far is more than a page may have, the next ones will
    not be on it: their sounds and pictures are forgotten at once.

    Parameters
    ----------
    max_bytes : int
        Of the page.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        super().__init__()
        self._room = max_bytes

    def append(self, media: Media) -> None:
        """Put a clip's behind those there are."""
        self._room -= _least_bytes(media)
        if self._room < 0:
            media = replace(media, sounds={}, pictures={}, forgotten=True)
        super().append(media)


def _base64_bytes(n: int) -> int:
    """Of a file of `n` bytes, its name and quotes included."""
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

    if not forgotten and (found := _fit_rounded(whole, room - sum(seen))):
        sounds, said = found
        return sounds, len(media), f"{_SMALL} rounded to 12 bits{said}. {_BESIDE}"

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
    said = f"{_SMALL} MP3 of {' and '.join(map(str, rates))} kbit/s"
    if not components:
        said += _NOT_ALONE
    if kept < len(media):
        said += f"; sounds and pictures of the last {len(media) - kept} clips are not in it"
    return smaller_sounds, kept, f"{said}. {_BESIDE}"


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
    found: list[dict[str, bytes]] = [{} for _ in whole]
    # The encoder lets go of Python's lock.
    with ThreadPoolExecutor() as pool:
        for sounds, own in zip(whole, found, strict=True):
            names = [name for name in sounds if of_components != (name in PARTS)]
            smaller = pool.map(rounded, [sounds[name] for name in names])
            own.update(zip(names, smaller, strict=True))
            room -= _total(own)
            if room < 0:
                break
    return found, room


def write_listening_page(
    path: Path,
    clips: Sequence[Mapping[str, Any]],
    media: Sequence[Media],
    *,
    title: str,
    max_bytes: int = MAX_BYTES,
) -> None:
    """Write the page, whole or not at all.

    Parameters
    ----------
    path : Path
        ``.../index.html``.
    clips : sequence of mappings
        What ``explanations.json`` holds of each; ``name`` is what the clip is called.
    media : sequence of Media
        Of the same clips.
    title : str
    max_bytes : int
        Beyond it, sounds are rounded, and components lose theirs if need be; if that is too much
        still, sounds become MP3 of ever lower bit rates; then components lose their sounds; then
        the last clips do. The page says so.
    """
    facts: dict[str, Any] = {
        "ticks": frequency_ticks(media[0].sample_rate) if media else [],
        "clips": list(clips),
    }
    blocks = [data_block("facts", facts)]
    used = _OWN + len(blocks[0]) + 120 * len(media)
    sounds, kept, said = _fit(media, max_bytes - used)
    for number, (heard, m) in enumerate(zip(sounds, media, strict=True)):
        seen = m.pictures if number < kept else {}
        both = {"sounds": _encoded(heard), "pictures": _encoded(seen)}
        blocks.append(data_block(f"media-{number}", both))
    write_page(path, "listening", title, {"data": "\n".join(blocks), "sound": escape(said)})


def _encoded(files: Mapping[str, bytes]) -> dict[str, str]:
    return {name: base64.b64encode(content).decode("ascii") for name, content in files.items()}
