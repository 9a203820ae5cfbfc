"""`l2i.pages`: self-contained, within their size, true to the figures, deaf to what names say."""

from __future__ import annotations

import base64
import dataclasses
import fnmatch
import hashlib
import html
import io
import json
import re
import tomllib
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import numpy as np
import pytest
import soundfile
from PIL import Image

import l2i
from l2i.errors import StoreError
from l2i.pages import Media, MediaList, refuse_foreign, write_figures_page, write_listening_page
from l2i.pages.charts import _ticks
from l2i.pages.figures import _figure
from l2i.pages.page import data_block
from l2i.pages.pictures import frequency_ticks, mask_picture, spectrogram_picture, spectrum_line
from l2i.pages.sound import flac, mp3, mp3_bytes, mp3_kbps, rounded
from tests.conftest import REPOSITORY
from tests.exhibits import CLASSES, CLIPS, DISAGREEING, WRONG, document, write_run


class Parsed(HTMLParser):
    """Elements with their attributes, and the text of each kind."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.texts.setdefault(tag, []).append("")
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts[self._open[-1]][-1] += data

    def blocks(self) -> dict[str, Any]:
        """The JSON in the page, by the elements' names."""
        scripts = [attrs for tag, attrs in self.elements if tag == "script"]
        return {
            str(attrs["id"]): json.loads(text)
            for attrs, text in zip(scripts, self.texts["script"], strict=True)
            if attrs.get("type") == "application/json"
        }


def _parsed(path: Path) -> Parsed:
    return Parsed(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("explanations")
    write_run(made, title="A <run> & more")
    write_figures_page(
        made / "figures.html",
        document(),
        title="A <run> & more",
        classes=CLASSES[:5],
        counts=np.diag([3, 4, 5, 6, 6]) + np.eye(5, k=1, dtype=np.int64),
        histories={
            "classifier": [{"loss": 1.0 / n, "validation_loss": 2.0 / n} for n in (1, 2, 3)],
            "dictionary": [{"objective": 5.0}],
            "interpreter": [],
        },
        kept={"classifier": 2},
        heard={(0, 0): 2, (1, 2): 1},
        listen=True,
    )
    return made


def _media(seconds: float = 2.0, rate: int = 22050, components: int = 2, seed: int = 0) -> Media:
    noise = np.random.default_rng(seed).normal(0, 0.2, round(seconds * rate)).astype(np.float32)
    sound = flac(noise, rate)
    names = ["original", "explanation", "removal", *map(str, range(components))]
    picture = spectrogram_picture(np.ones((129, 50)), rate, 1.0)
    return Media(rate, seconds, dict.fromkeys(names, sound), {"original": picture})


# --- names are text -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["index.html", "figures.html"])
def test_nothing_is_named_from_outside(folder: Path, name: str) -> None:
    """No address but ``data:`` and the page to listen to, no element or handler that a name has
    smuggled in, and a policy that names the page's own style and script, and no other."""
    page = _parsed(folder / name)
    for tag, attrs in page.elements:
        assert tag not in ("iframe", "object", "embed", "base", "b", "meta/")
        assert not [a for a in attrs if a.startswith("on") or a == "style"], (tag, attrs)
        for key in ("src", "href", "srcset", "action", "data"):
            own = ("data:", "explanations/index.html")
            assert (attrs.get(key) or "data:").startswith(own), (tag, attrs)
    text = (folder / name).read_text(encoding="utf-8")
    assert not re.search(r"url\(|@import|https?:|fetch\(", text)
    policy = next(
        str(a["content"]) for _, a in page.elements if a.get("http-equiv") and a.get("content")
    )
    scripts = [a for tag, a in page.elements if tag == "script"]
    code = [t for a, t in zip(scripts, page.texts["script"], strict=True) if not a.get("type")]
    assert len(code) == 1
    assert len(page.texts["style"]) == 1
    for text in (code[0], page.texts["style"][0]):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy and "dynamic" not in policy


def test_json_comes_back_as_it_was() -> None:
    """Whatever a name holds: quotes, ends of scripts, separators of lines, half a surrogate."""
    for text in (*CLASSES, *(c[0] for c in CLIPS), "\udcff", "\x00\x1b", "<!--", "]]>", "&lt;"):
        block = data_block("x", {text: [text, 1.5, None]})
        inside = block.removeprefix('<script type="application/json" id="x">')
        inside = inside.removesuffix("</script>")
        assert not set(inside) & set("<>&\u2028\u2029")
        assert inside.isascii()
        assert json.loads(inside) == {text: [text, 1.5, None]}


def test_page_says_what_the_json_says(folder: Path) -> None:
    """The page's facts are ``explanations.json``, number for number and name for name."""
    listed = json.loads((folder / "explanations.json").read_text(encoding="utf-8"))
    facts = _parsed(folder / "index.html").blocks()["facts"]
    assert facts["clips"] == [{"name": item["clip"], **item} for item in listed]
    assert [c["name"] for c in facts["clips"]] == [name for name, *_ in CLIPS]


def test_facts_of_the_toy(folder: Path) -> None:
    """What the toy's answers are on paper: class, right or wrong, agreement, component, silence."""
    listed = json.loads((folder / "explanations.json").read_text(encoding="utf-8"))
    for index, (item, (_, loud, _, label)) in enumerate(zip(listed, CLIPS, strict=True)):
        assert item["class"] == CLASSES[loud]
        assert item["decided"] == [CLASSES[loud]]
        assert item["labels"] == [CLASSES[label]]
        assert item["right"] == (index != WRONG)
        assert item["agree"] == (index != DISAGREEING)
        assert next(iter(item["classifier"])) == CLASSES[loud]
        assert set(item["classifier"]) == set(item["interpreter"])
        if index == DISAGREEING:
            assert item["components"] == []
            assert item["probability"]["explanation"] is None
            assert not item["holds"] and item["warnings"][0]["mark"] == "silent explanation"
        else:
            (one,) = item["components"]
            assert one["component"] == loud
            assert item["holds"] and not any(doubt["void"] for doubt in item["warnings"])
            assert one["relevance"] == pytest.approx(1.0)
            assert one["mask_peak"] == pytest.approx(1.0, abs=1e-4)
            assert 3 * loud <= one["peak_hz"] / 100 <= 3 * loud + 2


def test_sounds_are_the_files_sounds(folder: Path) -> None:
    """Sample for sample: FLAC loses nothing but how the last bit is rounded, and the page's gain
    is the files'."""
    listed = json.loads((folder / "explanations.json").read_text(encoding="utf-8"))
    blocks = _parsed(folder / "index.html").blocks()
    for number, item in enumerate(listed):
        sounds = blocks[f"media-{number}"]["sounds"]
        parts = {"original", "explanation", "removal"}
        assert set(sounds) == parts | {str(c["component"]) for c in item["components"]}
        for part in parts:
            wanted, rate = soundfile.read(folder / item["folder"] / f"{part}.wav", dtype="int16")
            got, also = soundfile.read(io.BytesIO(base64.b64decode(sounds[part])), dtype="int16")
            assert rate == also
            assert np.abs(got.astype(int) - wanted).max() <= 1


def test_folders_of_clips_stay_inside(folder: Path) -> None:
    """Clips called ``../../etc/...`` have folders within the run's; nothing is beside it."""
    listed = json.loads((folder / "explanations.json").read_text(encoding="utf-8"))
    for item in listed:
        assert (folder / item["folder"]).resolve().parent == folder.resolve()
        assert (folder / item["folder"] / "original.wav").is_file()


# --- size ---------------------------------------------------------------------------------------


def _facts(n: int) -> list[dict[str, Any]]:
    return [{"name": f"clip {i}"} for i in range(n)]


@pytest.mark.parametrize(
    ("kib", "sentence", "components", "clips"),
    [
        (3000, "lossless", True, 4),
        (1900, "sounds are rounded to 12 bits. The sound files", True, 4),
        (1300, "rounded to 12 bits, and components cannot be heard alone", False, 4),
        (700, "MP3 of 64 kbit/s", True, 4),
        (450, "64 kbit/s, and components cannot be heard alone", False, 4),
        (300, "last 2 clips are not in it", False, 2),
        (60, "last 4 clips are not in it", False, 0),
    ],
)
def test_page_stays_within_its_size(
    tmp_path: Path, kib: int, sentence: str, components: bool, clips: int
) -> None:
    """Smaller pages have sounds of fewer bits, then none of components, then of fewer clips; each
    says so, and is within what was allowed."""
    path = tmp_path / "index.html"
    media = [_media(seed=i) for i in range(4)]
    write_listening_page(path, _facts(4), media, title="t", max_bytes=kib * 1024)
    assert path.stat().st_size <= kib * 1024
    page = _parsed(path)
    assert sentence in " ".join(page.texts["p"])
    blocks = page.blocks()
    sounds = [blocks[f"media-{i}"]["sounds"] for i in range(4)]
    assert [bool(s) for s in sounds] == [True] * clips + [False] * (4 - clips)
    assert all(("0" in s) == components for s in sounds[:clips])
    seen = [bool(blocks[f"media-{i}"]["pictures"]) for i in range(4)]
    assert seen == [True] * clips + [False] * (4 - clips)


def _quiet_media(seed: int) -> Media:
    """A clip that is smaller without loss than as MP3."""
    silence = flac(np.zeros(44100, np.float32), 22050)
    return Media(22050, 2.0, dict.fromkeys(["original", "explanation", "removal"], silence), {})


@pytest.mark.parametrize("kib", [60, 150, 300, 450, 700, 3000])
@pytest.mark.parametrize("make", [_media, _quiet_media])
def test_what_no_page_can_have_is_forgotten_at_once(
    tmp_path: Path, kib: int, make: Callable[..., Media]
) -> None:
    """The page is byte for byte the one of all sounds and pictures, which are not kept for it."""
    media = [make(seed=i) for i in range(9)]
    kept = MediaList(kib * 1024)
    for one in media:
        kept.append(one)
    pages = []
    for some in (media, kept):
        path = tmp_path / f"{len(pages)}.html"
        write_listening_page(path, _facts(9), some, title="t", max_bytes=kib * 1024)
        pages.append(path.read_bytes())
    assert pages[0] == pages[1]
    held = [sum(map(len, (*m.sounds.values(), *m.pictures.values()))) for m in kept]
    if kib == 300 and make is _media:
        assert [bool(size) for size in held] == [True] * 3 + [False] * 6
    if kib == 3000 and make is _quiet_media:
        assert all(held)


@pytest.mark.parametrize("rate", [4000, 6400, 8000, 16000, 22050, 44100, 96000])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_mp3_of_any_sample_rate(rate: int, level: int) -> None:
    """Readable, as long and as loud as what it was made of, of the bit rate foretold."""
    t = np.arange(2 * rate) / rate
    x = (0.5 * np.sin(2 * np.pi * 440 * t)).astype(np.float32)
    made = mp3(flac(x, rate), level)
    assert len(made) <= mp3_bytes(rate, 2.0, level)
    assert len(made) >= 0.8 * 2.0 * 125 * mp3_kbps(rate, level)
    y, also = soundfile.read(io.BytesIO(made))
    assert len(y) / also == pytest.approx(2.0, abs=1e-3)
    middle = y[len(y) // 4 : 3 * len(y) // 4]
    assert np.sqrt(np.mean(middle**2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.1)


@pytest.mark.parametrize("peak", [1.5, 0.9, 0.1, 0.01, 1e-4, 0.0])
def test_rounding_is_far_below_a_sounds_peak(peak: float) -> None:
    """It takes what is 66 dB below full scale or less, and 54 dB below a sound's own peak; of a
    very quiet sound it takes nothing, and silence stays silent. A loud one has a fifth less
    bytes, even where it is noise."""
    x = np.random.default_rng(0).uniform(-peak, peak, 8000).astype(np.float32)
    x[:2000] = 0
    lossless = flac(x, 8000)
    small = rounded(lossless)
    wanted, got = (soundfile.read(io.BytesIO(sound))[0] for sound in (lossless, small))
    most = min(10 ** (-66 / 20), peak * 10 ** (-54 / 20))
    assert np.abs(got - wanted).max() <= most
    assert not got[:2000].any()
    if peak < 0.03:
        np.testing.assert_array_equal(got, wanted)
    if peak > 0.5:
        assert len(small) < 0.8 * len(lossless)


def test_flac_does_not_wrap_around() -> None:
    """A component louder than full scale is cut, not folded over."""
    y, _ = soundfile.read(io.BytesIO(flac(np.full(4000, 1.5, np.float32), 8000)))
    assert y.min() > 0.99


def test_what_is_too_large_for_a_page_lies_beside_it(tmp_path: Path) -> None:
    """In the clips' folders, lossless, while the page stays as small as its words; and nothing of
    it is kept in memory. Where there is room, all is in the page, and nothing is left beside."""
    path = tmp_path / "index.html"
    for room, beside in ((300 * 1024, True), (20 * 2**20, False)):
        media = MediaList(room, beside=tmp_path)
        wanted = [_media(seed=i) for i in range(4)]
        for i, one in enumerate(wanted):
            (tmp_path / f"clip #{i}").mkdir(exist_ok=True)
            media.append(one, f"clip #{i}")
        write_listening_page(path, _facts(4), media, title="t")
        assert media.lies_beside == beside
        files = sorted(tmp_path.glob("*/page.js"))
        page = _parsed(path)
        if not beside:
            assert files == [] and len(page.blocks()) == 5
            continue
        assert not any(m.sounds or m.pictures for m in media)
        assert path.stat().st_size < 100 * 1024
        assert page.blocks()["facts"]["beside"] == [f"clip #{i}/" for i in range(4)]
        assert "keep the folder as a whole" in " ".join(page.texts["p"])
        for i, (file, one) in enumerate(zip(files, wanted, strict=True)):
            text = file.read_text(encoding="utf-8").strip()
            folder, held = json.loads(f"[{text.removeprefix('arrive(').removesuffix(')')}]")
            assert folder == f"clip #{i}/"
            assert base64.b64decode(held["sounds"]["original"]) == one.sounds["original"]
            assert set(held["sounds"]) == set(one.sounds)


@pytest.mark.parametrize("gain", [1.0, 0.1, 0.0])
def test_levels_are_the_sounds(tmp_path: Path, gain: float) -> None:
    """The page has root mean square and peak of each sound; of a sine the one is the other over
    the root of two."""
    sine = (gain * np.sin(np.arange(8000) / 5)).astype(np.float32)
    path = tmp_path / "index.html"
    media = Media.of(8000, {"original": sine, "7": sine}, {})
    write_listening_page(path, _facts(1), [media], title="t")
    levels = _parsed(path).blocks()["media-0"]["levels"]
    (rms, peak) = levels.pop("original")
    assert levels == {} and media.duration_s == 1.0
    assert rms == pytest.approx(gain / np.sqrt(2), rel=1e-2)
    assert peak == pytest.approx(gain, rel=1e-2)


# --- pictures -----------------------------------------------------------------------------------


def _pixels(png: bytes, mode: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert(mode)).astype(int)


@pytest.mark.parametrize("hz", [250, 1000, 2000, 8000])
def test_a_tone_lies_at_its_tick(hz: int) -> None:
    """The brightest row of a tone's picture is where the axis says its frequency is."""
    magnitude = np.zeros((513, 20))
    magnitude[round(hz * 1024 / 44100)] = 1.0
    rows = _pixels(spectrogram_picture(magnitude, 44100, 1.0), "RGB").sum(axis=(1, 2))
    word = f"{hz} Hz" if hz < 1000 else f"{hz // 1000} kHz"
    place = dict(frequency_ticks(44100))[word]
    assert np.argmax(rows) / (len(rows) - 1) == pytest.approx(place, abs=0.02)


def test_pictures_of_long_clips_are_small() -> None:
    """At most 600 columns, each the mean of its frames; short clips keep their frames."""
    magnitude = np.random.default_rng(0).random((513, 7000))
    picture = spectrogram_picture(magnitude, 44100, 1.0)
    assert _pixels(picture, "RGB").shape[1] == 600
    assert len(picture) < 150_000
    assert _pixels(spectrogram_picture(magnitude[:, :7], 44100, 1.0), "RGB").shape[1] == 7


def test_a_components_spectrum_as_a_small_picture() -> None:
    """Forty bands, the lowest first, in percent; its greatest is where the axis has it."""
    low, high = np.zeros(513), np.zeros(513)
    low[0], high[round(4000 * 1024 / 16000)] = 3.0, 0.5
    lines = [spectrum_line(w, 16000) for w in (low, high)]
    assert [len(line) for line in lines] == [40, 40]
    assert [max(line) for line in lines] == [100, 100]
    assert lines[0].index(100) == 0
    place = 1 - dict(frequency_ticks(16000))["4 kHz"]
    assert lines[1].index(100) / 39 == pytest.approx(place, abs=0.03)
    assert spectrum_line(np.zeros(513), 16000) == [0] * 40


def test_the_colours_are_matplotlibs_magma() -> None:
    """They are written down, so that explanations can be saved without it."""
    from matplotlib import colormaps

    from l2i.pages import pictures

    magma = colormaps["magma"](np.linspace(0, 1, pictures._LEVELS), bytes=True)[:, :3]
    assert base64.b64decode(pictures._MAGMA) == magma.tobytes()


def test_mask_is_opaque_where_it_keeps() -> None:
    """Alpha follows the mask, and its zero shows nothing; silence is black."""
    mask, loud = np.repeat([[0.0, 0.5, 1.0]], 129, axis=0), np.ones((129, 3))
    alpha = _pixels(mask_picture(mask, 8000, loud, 1.0), "RGBA")[..., 3]
    assert (alpha[:, 0] == 0).all()
    # 64 levels: half a step of 4.
    assert alpha[:, 1] == pytest.approx(alpha[0, 2] / 2, abs=4)
    assert (alpha[:, 2] > 100).all()
    assert _pixels(spectrogram_picture(np.zeros((129, 3)), 8000, 0.0), "RGB").max() < 10


def test_of_silence_a_mask_keeps_nothing() -> None:
    """Where the spectrogram's picture is black, 80 dB below the brightest, no mask is seen; one of
    a silent clip is not seen anywhere."""
    mask, magnitude = np.ones((129, 3)), np.repeat([[1.0, 2e-4, 0.5e-4]], 129, axis=0)
    alpha = _pixels(mask_picture(mask, 8000, magnitude, 1.0), "RGBA")[..., 3]
    assert (alpha[:, :2] > 100).all() and (alpha[:, 2] == 0).all()
    silent = mask_picture(mask, 8000, np.zeros((129, 3)), 0.0)
    assert (_pixels(silent, "RGBA")[..., 3] == 0).all()


# --- the page of figures ------------------------------------------------------------------------


def test_figures_are_the_documents(folder: Path) -> None:
    """Values, intervals and directions are those of ``scores.json``; what is absent is a dash."""
    text = (folder / "figures.html").read_text(encoding="utf-8")
    by_name = dict(re.findall(r'data-name="(\w+)">([^<]*)<', text))
    assert by_name == {"accuracy": "0.812", "average_drop": "12.3", "random_logit": "–"}
    assert "0.700 to 0.900" in text
    assert text.count("↑</span>") == 1
    assert text.count("↓</span>") == 1
    keys = re.findall(r'<td class="number" data-key="([^"]*)"', text)
    assert keys == ["3", "0.5", "4", "1.0", "5", "0.25", "6", "", "7", "1.0"]
    assert "24 of 28 clips are right" in text


def test_a_control_stands_in_the_row_it_belongs_to(tmp_path: Path) -> None:
    """It has no row of its own; beside its figure it has the digits that this has."""
    scores = {"accuracy": 0.8125, "random_logit": 0.04}
    changed = document() | {"scores": scores, "controls": {"accuracy": "random_logit"}}
    path = tmp_path / "figures.html"
    write_figures_page(path, changed, title="t", classes=CLASSES[:2], counts=None)
    text = path.read_text(encoding="utf-8")
    assert re.findall(r'data-name="(\w+)"', text) == ["accuracy"]
    assert ">0.812 <span" in text and "(random 0.0400)</span>" in text


def test_cells_lead_to_their_clips(folder: Path, tmp_path: Path) -> None:
    """Those of whose clips the page to listen to has some, by what these are and what was said;
    of several labels, by found, missed and false alarm."""

    def links(path: Path) -> list[dict[str, list[str]]]:
        paths = [str(a["href"]) for tag, a in _parsed(path).elements if tag == "a"]
        assert all(address.startswith("explanations/index.html") for address in paths)
        cells = [address.partition("#")[2] for address in paths]
        return [parse_qs(words, keep_blank_values=True) for words in cells if words]

    assert links(folder / "figures.html") == [
        {"label": [CLASSES[0]], "said": [CLASSES[0]]},
        {"label": [CLASSES[1]], "said": [CLASSES[2]]},
    ]
    several = tmp_path / "figures.html"
    write_figures_page(
        several,
        document(),
        title="t",
        classes=CLASSES[:2],
        counts=np.array([[1, 3, 0, 22], [0, 0, 1, 25]]),
        answers=("found", "missed", "false alarm", "rightly not named"),
        heard={(0, 1): 1, (1, 2): 1},
    )
    assert links(several) == [
        {"label": [CLASSES[0]], "unsaid": [CLASSES[0]]},
        {"unlabelled": [CLASSES[1]], "said": [CLASSES[1]]},
    ]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (8, "", "8"),
        (5.0, "%", "5.00"),
        (11.82, "nats", "11.8"),
        (99.96, "%", "100.0"),
        (12345.6, "", "12346"),
        (0.0763, "log power", "0.0763"),
        (5.47e-05, "logit", "0.000"),
        (0.0, "logit", "0.000"),
        (-0.0001, "probability", "0.000"),
        (-2.5, "logit", "-2.50"),
        (0.9996, "share", "1.000"),
        (float("nan"), "logit", "–"),
        (None, "share", "–"),
    ],
)
def test_a_figure_has_three_digits(value: float | None, unit: str, text: str) -> None:
    """A last nought too, no exponent, no negative nothing; a number of clips is whole."""
    assert _figure(value, unit) == text


def test_figures_name_classes_as_text(folder: Path) -> None:
    """Class names with markup stand there as they are."""
    page = _parsed(folder / "figures.html")
    heads = [t for t in page.texts["th"] if t]
    for name in CLASSES[:5]:
        assert name in heads
    assert page.texts["title"] == ["A <run> & more"]


def test_curves_leave_out_what_is_not_there(folder: Path) -> None:
    """One epoch is a point; a figure that is undefined has no line, and no NaN is drawn."""
    text = (folder / "figures.html").read_text(encoding="utf-8")
    assert "nan" not in re.findall(r"<svg.*</svg>", text, re.S)[0].lower()
    titles = re.findall(r"<figcaption>([^<]+)<", text)
    assert "classifier: loss" in titles
    assert "dictionary: loss" in titles
    assert not [t for t in titles if t.startswith("interpreter")]


@pytest.mark.parametrize(
    ("low", "high", "log", "ticks"),
    [
        (0.0, 1.0, False, [0, 0.25, 0.5, 0.75, 1]),
        (1.0, 30.0, False, [10, 20, 30]),
        (-0.1, 0.1, False, [-0.1, -0.05, 0, 0.05, 0.1]),
        (0.06, 3.0, True, [0.1, 0.2, 0.5, 1, 2]),
        (0.004, 50.0, True, [0.01, 0.1, 1, 10]),
        # Less than a step of a logarithmic scale: by equal steps.
        (1.2, 1.9, True, [1.2, 1.4, 1.6, 1.8]),
    ],
)
def test_ticks_are_round_and_few(low: float, high: float, log: bool, ticks: list[float]) -> None:
    """And within the axis, its ends included."""
    assert _ticks(low, high, log) == pytest.approx(ticks)


def test_the_epoch_that_was_kept_is_marked(folder: Path) -> None:
    """Where the curve's point of that epoch stands, and nowhere else."""
    text = (folder / "figures.html").read_text(encoding="utf-8")
    (chart,) = re.findall(r"<figcaption>classifier: loss</figcaption>(<svg.*?</svg>)", text, re.S)
    points = re.findall(r'class="dot l0" cx="([\d.]+)"', chart)
    assert re.findall(r'class="mark" x1="([\d.]+)"', text) == [points[1]]


def test_a_class_whose_explanations_do_not_hold_is_marked(tmp_path: Path) -> None:
    """In its row of the table, and in no other."""
    weak = CLASSES[1]
    path = tmp_path / "figures.html"
    tree = document() | {"weak_classes": [weak]}
    write_figures_page(path, tree, title="t", classes=CLASSES[:2], counts=None)
    rows = re.findall(r'<th scope="row" data-key="([^"]*)">(.*?)</th>', path.read_text("utf-8"))
    assert [html.unescape(key) for key, cell in rows if "does not hold" in cell] == [weak]
    assert len(rows) == 5


def test_figures_of_a_run_without_detections(tmp_path: Path) -> None:
    """Several labels, no class detected in any clip: no curve, figures undefined, a page all the
    same."""
    changed = document() | {"faithfulness": [], "task": "multi-label", "per_class": {}}
    write_figures_page(
        tmp_path / "figures.html",
        changed,
        title="t",
        classes=CLASSES[:2],
        counts=np.array([[0, 3, 0, 22], [0, 0, 0, 25]]),
        answers=("found", "missed", "false alarm", "rightly not named"),
    )
    text = (tmp_path / "figures.html").read_text(encoding="utf-8")
    assert "Faithfulness" not in text
    assert ">22<" in text


# --- files --------------------------------------------------------------------------------------


def test_foreign_pages_are_left_alone(folder: Path, tmp_path: Path) -> None:
    """Only a page of ours is replaced."""
    refuse_foreign(folder / "index.html")
    refuse_foreign(tmp_path / "nothing.html")
    mine = tmp_path / "index.html"
    mine.write_text("<p>my home page</p>", encoding="utf-8")
    (tmp_path / "folder.html").mkdir()
    for path in (mine, tmp_path / "folder.html"):
        with pytest.raises(StoreError, match="no page of ours"):
            refuse_foreign(path)


def test_a_page_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    """NaN is no JSON: nothing is written, and nothing half-made is left."""
    path = tmp_path / "index.html"
    write_listening_page(path, _facts(1), [_media()], title="old")
    before = path.read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        write_listening_page(path, [{"name": "x", "p": float("nan")}], [_media()], title="new")
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["index.html"]


def test_templates_are_in_the_wheel() -> None:
    """Every file of the folder that is no module is named in the package's data."""
    text = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    globs = tomllib.loads(text)["tool"]["setuptools"]["package-data"]["l2i"]
    root = Path(l2i.__file__).parent
    files = [p for p in (root / "pages").iterdir() if p.is_file() and p.suffix != ".py"]
    assert len(files) >= 6
    for path in files:
        name = path.relative_to(root).as_posix()
        assert any(fnmatch.fnmatch(name, glob) for glob in globs), name


def test_media_is_frozen() -> None:
    """What was made for a page is not changed by writing it."""
    media = _media()
    with pytest.raises(dataclasses.FrozenInstanceError):
        media.duration_s = 1.0  # type: ignore[misc]
