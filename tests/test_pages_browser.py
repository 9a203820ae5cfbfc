"""The pages in a real browser: sound that plays, filters that filter, keys, light and dark, a
phone, a sandboxed frame; no complaint, and not one request."""

from __future__ import annotations

import base64
import csv
import html
import io
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode

import numpy as np
import pytest
import soundfile
import torch

import l2i
from l2i.audit.cues import Palette
from l2i.audit.page import group_entry, suspect_entry, write_audit_page
from l2i.audit.proof import Proof, Trial
from l2i.audit.traits import Trait
from l2i.dsp.spectrogram import Domain
from l2i.explained import explain_by
from l2i.explanation import MethodSettings, Subject, make_method
from l2i.metrics import METRICS
from l2i.models.heard import hear
from l2i.pages import Media, MediaList, write_figures_page, write_listening_page
from l2i.pages.listening import BESIDE
from l2i.pages.page import asset
from l2i.pages.pictures import spectrogram_picture
from l2i.pages.sound import flac, mp3
from l2i.pages.start import RunCard, start_page
from l2i.recipes.opening.description import main_figures
from l2i.recipes.tables import side_by_side
from tests.browser import Browser, Tab, open_browser, program
from tests.exhibits import (
    CLASSES,
    CLIPS,
    DISAGREEING,
    FIGURES,
    SECONDS,
    WRONG,
    document,
    hertz,
    write_run,
)

# The loudest frequency and the level of what was played in the last sixth of a second.
_HEARD = """(() => {
  const x = new Float32Array(tap.fftSize), f = new Float32Array(tap.frequencyBinCount);
  tap.getFloatTimeDomainData(x);
  tap.getFloatFrequencyData(f);
  const bin = f.indexOf(Math.max(...f));
  return [Math.sqrt(x.reduce((sum, v) => sum + v * v, 0) / x.length),
          bin * tap.context.sampleRate / tap.fftSize];
})()"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    executable = program()
    if executable is None:
        pytest.skip("there is no Chromium on this machine: pages are not tried in a browser")
    with open_browser(executable, tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("explanations")
    write_run(made, title="A <run>")
    write_figures_page(
        made / "figures.html",
        document(),
        title="A <run>",
        classes=CLASSES[:5],
        counts=np.diag([3, 4, 5, 6, 7]) + np.eye(5, k=1, dtype=np.int64),
        histories={"classifier": [{"loss": 1 / n, "validation_loss": 2 / n} for n in (1, 2, 3)]},
        heard={(0, 0): 1},
        listen=True,
    )
    cards = [
        RunCard(
            name=name,
            about="demo · finished",
            figures=main_figures(FIGURES),
            warnings=["There are 3 test clips."],
            links={"In MLflow": "/mlflow#/experiments/1/runs/2"},
            listen="/listen/2",
        )
        for name in (*CLASSES, "a-run-whose-name-is-long-" + 40 * "x")
    ]
    text = start_page("mlruns/mlflow.db", cards, {"l2i listen latest": "hear it"})
    (made / "start.html").write_text(text, encoding="utf-8")
    return made


@pytest.fixture
def tab(browser: Browser, folder: Path) -> Iterator[Tab]:
    """The listening page; at the end there was neither a complaint nor a request."""
    opened = browser.open(folder / "index.html")
    yield opened
    assert opened.complaints() == []
    assert opened.requests() == [(folder / "index.html").as_uri()]
    opened.close()


def _explained(folder: Path) -> list[dict[str, Any]]:
    document: list[dict[str, Any]] = json.loads(
        (folder / "explanations.json").read_text(encoding="utf-8")
    )
    return document


def _level(path: Path) -> float:
    x, _ = soundfile.read(path)
    return float(np.sqrt(np.mean(x[len(x) // 4 : 3 * len(x) // 4] ** 2)))


def _play(tab: Tab) -> None:
    tab.press(" ")
    tab.until("player.playing")
    # Until what the analyser looks at is all of this sound.
    tab.until("position() > 0.3")


def _shown(tab: Tab) -> list[str]:
    names: list[str] = tab.value(
        "[...document.querySelectorAll('#clips button')].map((b) => b.firstChild.textContent)"
    )
    return names


# --- sound --------------------------------------------------------------------------------------


def test_sound_plays_as_the_files_do(tab: Tab, folder: Path) -> None:
    """Each of the three sounds has the tone and the level of its file, and the playhead moves as
    the clock does."""
    place = folder / _explained(folder)[0]["folder"]
    _, loud, soft, _ = CLIPS[0]
    tab.value("byId('loop').click()")
    _play(tab)
    assert tab.value("player.context.state") == "running"
    before, clock = tab.value("[position(), player.context.currentTime]")
    tab.until(f"player.context.currentTime > {clock} + 0.3")
    after, later = tab.value("[position(), player.context.currentTime]")
    assert (after - before) % SECONDS == pytest.approx(later - clock, abs=0.1)
    for key, part, band in (
        ("1", "original", loud),
        ("2", "explanation", loud),
        ("3", "removal", soft),
    ):
        tab.press(key)
        tab.browser.listen(0.35)
        level, tone = tab.value(_HEARD)
        assert level == pytest.approx(_level(place / f"{part}.wav"), rel=0.1), part
        assert tone == pytest.approx(hertz(band), abs=10), part


def test_a_change_of_sound_keeps_the_position(tab: Tab) -> None:
    """The position goes on as the clock does, through every change; the sounds run on together."""
    _play(tab)
    tab.until("player.live.size === 3")
    for key in "2312":
        before, clock = tab.value("[position(), player.context.currentTime]")
        tab.press(key)
        after, later = tab.value("[position(), player.context.currentTime]")
        assert after - before == pytest.approx(later - clock, abs=0.06)
        gains = tab.value("[...player.live.values()].length")
        assert gains == 3
    assert tab.value("page.part") == "explanation"
    assert tab.value("document.querySelector('#parts [aria-pressed=true] span').textContent") == (
        "explanation"
    )


def test_paused_changes_keep_the_position_too(tab: Tab) -> None:
    """Pause, seek, change, play: it goes on from there."""
    _play(tab)
    tab.press(" ")
    tab.until("!player.playing")
    tab.press("ArrowRight")
    at = tab.value("position()")
    assert at > 0.75
    tab.press("3")
    assert tab.value("position()") == at
    tab.press(" ")
    tab.until("player.playing")
    assert at <= tab.value("position()") < at + 0.3


def test_it_stops_at_the_end_and_repeats_if_asked(tab: Tab) -> None:
    """At the end it stops, and plays from the start the next time; with repeat it goes round."""
    tab.value(f"seek({SECONDS} - 0.15)")
    tab.press(" ")
    tab.until("player.playing")
    tab.until(f"!player.playing && position() === {SECONDS}")
    tab.press(" ")
    tab.until("player.playing")
    assert tab.value("position()") < 0.5
    tab.press("r")
    tab.value(f"seek({SECONDS} - 0.15)")
    tab.until("player.playing && position() > 0.1 && position() < 1")


def test_the_playhead_follows_and_a_click_seeks(tab: Tab) -> None:
    """A click in the spectrogram seeks there; the playhead and the slider are there too."""
    tab.click("#picture", x=0.25)
    assert tab.value("position()") == pytest.approx(SECONDS / 4, abs=0.02)
    share = """(() => { const p = byId("picture").getBoundingClientRect();
        return (byId("playhead").getBoundingClientRect().left - p.left) / p.width; })()"""
    assert tab.value(share) == pytest.approx(0.25, abs=0.01)
    assert float(tab.value("byId('seek').value")) == pytest.approx(SECONDS / 4, abs=0.02)
    _play(tab)
    assert tab.value(f"Math.abs({share} - position() / {SECONDS})") < 0.03


def test_what_is_heard_is_what_is_at_the_playhead(
    browser: Browser, folder: Path, tmp_path: Path
) -> None:
    """With sounds whose tone says the second: after a seek, after every change, and in repeats, one
    hears the second where the playhead is."""
    rate, seconds = 8000, 3
    t = np.arange(seconds * rate) / rate
    second = np.floor(t)
    sounds = {
        part: flac((0.5 * np.sin(2 * np.pi * (f + 200 * second) * t)).astype(np.float32), rate)
        for part, f in (("original", 500), ("explanation", 1500), ("removal", 2500))
    }
    facts = {**_explained(folder)[0], "name": "seconds", "duration_s": seconds}
    path = tmp_path / "index.html"
    write_listening_page(path, [facts], [Media(rate, seconds, sounds, {})], title="t")
    tab = browser.open(path)
    tab.press("r")

    def heard() -> float:
        tab.until("(position() % 1) > 0.3 && (position() % 1) < 0.8")
        at, (_, tone) = tab.value(f"[position(), {_HEARD}]")
        return tone - 200 * math.floor(at)

    tab.click("#picture", x=0.37)
    tab.press(" ")
    tab.until("player.playing")
    assert heard() == pytest.approx(500, abs=15)
    tab.press("2")
    tab.browser.listen(0.3)
    assert heard() == pytest.approx(1500, abs=15)
    tab.value("seek(0.1)")
    tab.until("player.playing")
    assert heard() == pytest.approx(1500, abs=15)
    tab.press("3")
    tab.value("seek(2.7)")
    tab.until("player.playing && position() < 1")
    assert heard() == pytest.approx(2500, abs=15)
    assert tab.complaints() == []
    tab.close()


def test_a_component_is_heard_alone(tab: Tab) -> None:
    """A click on a component plays it; here it is the explanation's tone. A second click leads
    back."""
    tab.click("#components button")
    tab.until("player.playing && position() > 0.3")
    _, tone = tab.value(_HEARD)
    assert tone == pytest.approx(hertz(CLIPS[0][1]), abs=10)
    assert f"component {CLIPS[0][1]} alone" in tab.value("byId('caption').textContent")
    tab.click("#components button")
    assert tab.value("page.part") == "original"
    assert tab.value("player.playing")


def test_mp3_begins_where_flac_does(browser: Browser, tmp_path: Path) -> None:
    """The browser takes the encoder's delay off again, at every bit rate a page may have."""
    path = tmp_path / "index.html"
    for rate in (6400, 16000, 22050, 44100):
        x = np.zeros(rate, np.float32)
        x[rate // 2 : rate // 2 + rate // 50] = 0.8 * np.sin(np.arange(rate // 50))
        sound = flac(x, rate)
        kinds = {"flac": sound, **{f"mp3 {level}": mp3(sound, level) for level in (0, 1, 2)}}
        write_listening_page(path, [], [], title="t")
        tab = browser.open(path)
        for kind, content in kinds.items():
            text = base64.b64encode(content).decode()
            centre, seconds = tab.value(
                f"""(async () => {{
                const context = new OfflineAudioContext(1, 9, 48000);
                const b = await context.decodeAudioData(bytes("{text}"));
                let sum = 0, whole = 0;
                b.getChannelData(0).forEach((v, i) => {{ sum += v * v * i; whole += v * v; }});
                return [sum / whole / 48000, b.duration]; }})()"""
            )
            assert centre == pytest.approx(0.51, abs=0.002), (rate, kind)
            assert seconds == pytest.approx(1.0, abs=0.001), (rate, kind)
        tab.close()


# --- what is shown ------------------------------------------------------------------------------


def test_names_are_text(tab: Tab) -> None:
    """Names of files and classes stand there letter by letter; nothing of them has become an
    element or run."""
    assert _shown(tab) == [name for name, *_ in CLIPS]
    for index, (name, loud, _, _) in enumerate(CLIPS):
        tab.value(f"showClip({index})")
        assert tab.value("byId('name').textContent") == name
        assert CLASSES[loud] in tab.value("byId('verdicts').textContent")
    assert tab.value("document.title") == "A <run>"
    assert tab.value("document.querySelectorAll('b, img:not(.picture img)').length") == 0


def test_figures_are_the_jsons(tab: Tab, folder: Path) -> None:
    """Probabilities, relevances and verdicts shown are those of ``explanations.json``."""

    def percent(p: float | None) -> str:
        if p is None:
            return "silent"
        return f"{100 * p:.{1 if p > 0.995 or p < 0.0995 else 0}f} %"

    for index, item in enumerate(_explained(folder)):
        tab.value(f"showClip({index})")
        shown = tab.value(
            "[...document.querySelectorAll('#parts small')].map((s) => s.textContent)"
        )
        wanted = [f"{percent(item['probability'][p])} {item['class']}" for p in item["probability"]]
        assert shown == wanted
        cells = tab.value(
            "[...byId('classes').tBodies[0].rows].map((r) => [r.cells[0].firstChild.textContent,"
            " r.cells[1].firstChild.textContent, r.cells[2].firstChild.textContent])"
        )
        assert cells == [
            [name, percent(p), percent(item["interpreter"][name])]
            for name, p in item["classifier"].items()
        ]
        relevances = tab.value(
            "[...document.querySelectorAll('.component')].map((c) => c.children[2].textContent)"
        )
        both = [*item["components"], *item["others"]]
        assert relevances == [f"{c['relevance']:.2f}" for c in both]
        verdicts = tab.value("byId('verdicts').textContent")
        assert ("(right)" in verdicts) == item["right"]
        assert ("(agrees)" in verdicts) == item["agree"]
        assert ("the explanation holds" in verdicts) == item["holds"]
        sign = "⚠" if item["holds"] else "✗"
        assert all(f"{sign} {doubt['text']}" in verdicts for doubt in item["warnings"])


@pytest.mark.parametrize(("share", "more"), [(0.25, "others together have 25 %"), (0.5, "")])
def test_what_components_that_are_not_listed_have(tab: Tab, share: float, more: str) -> None:
    """Five of many are listed; of gates nothing else would say where the rest is."""
    clip = {"class": "dog", "kept": 0.8, "components": [{"relevance": 0.5}, {"relevance": share}]}
    about = tab.value(f"aboutComponents({json.dumps(clip)})")
    assert "80 % of the clip’s energy is kept" in about
    assert more in about and ("others together" in about) == bool(more)


def test_filters_filter(tab: Tab) -> None:
    """By class, by right and wrong, by agreement, and both; what passes none is said."""
    names = [name for name, *_ in CLIPS]
    tab.choose("#by-class", f"={CLASSES[2]}")
    assert _shown(tab) == [names[0], names[3]]
    tab.choose("#by-class", "")
    tab.choose("#by-verdict", "classifier wrong")
    assert _shown(tab) == [names[WRONG]]
    assert tab.value("byId('name').textContent") == names[WRONG]
    tab.choose("#by-verdict", "interpreter disagrees")
    assert _shown(tab) == [names[DISAGREEING]]
    assert tab.value("byId('count').textContent") == "1 of 4 clips"
    assert "⚠ silent explanation" in tab.value("byId('clips').textContent")
    tab.choose("#by-verdict", "explanation does not hold")
    assert _shown(tab) == [names[DISAGREEING]]
    tab.choose("#by-class", f"={CLASSES[2]}")
    assert _shown(tab) == []
    assert tab.value("!byId('nothing').hidden && byId('clip').hidden")
    tab.press(" ")
    tab.press("j")
    assert not tab.value("player.playing")
    tab.choose("#by-verdict", "all")
    assert tab.value("byId('nothing').hidden && !byId('clip').hidden")


def test_keys(tab: Tab) -> None:
    """j and k go through the clips and stop at the ends; m shows and hides the mask; ? explains."""
    seen = []
    for key in "jjjjkk":
        tab.press(key)
        seen.append(tab.value("page.clip"))
    assert seen == [1, 2, 3, 3, 2, 1]
    assert tab.value("byId('overlay').complete && byId('overlay').naturalWidth > 0")
    tab.press("m")
    assert not tab.value("byId('overlay').hasAttribute('src')")
    tab.press("?")
    assert tab.value("byId('keys').open")
    tab.press("j")
    assert tab.value("page.clip") == 1
    tab.press("Escape")
    assert not tab.value("byId('keys').open")
    # A key that the focused element knows is left to it.
    tab.value("byId('by-class').focus()")
    tab.press("j")
    assert tab.value("page.clip") == 1


def test_after_a_click_the_space_bar_plays(tab: Tab) -> None:
    """A clip chosen by pointer leaves the focus on Play."""
    tab.click("#clips li:nth-child(2) button")
    assert tab.value("page.clip") == 1
    tab.press(" ")
    tab.until("player.playing")


def test_silent_explanations_are_said_to_be(tab: Tab) -> None:
    """Where nothing is relevant the page says so; the silence plays without a complaint."""
    tab.value(f"showClip({DISAGREEING})")
    assert "there is nothing to hear" in tab.value("byId('about').textContent")
    tab.press("2")
    _play(tab)
    assert tab.value(_HEARD)[0] == 0.0


def test_clips_without_sounds(browser: Browser, tmp_path: Path) -> None:
    """Where a page would be too large, the clips without sounds cannot be played, and say so."""
    path = tmp_path / "index.html"
    run = tmp_path / "run"
    facts = [{"name": str(i), **item} for i, item in enumerate(write_run(run))]
    noise = flac(np.random.default_rng(0).normal(0, 0.2, 44100).astype(np.float32), 44100)
    media = [
        Media(44100, 1.0, dict.fromkeys(("original", "explanation", "removal"), noise), {})
    ] * len(facts)
    write_listening_page(path, facts, media, title="t", max_bytes=190_000)
    tab = browser.open(path)
    assert tab.value(
        "[...facts.clips.keys()].map((i) => !!JSON.parse("
        "byId(`media-${i}`).textContent).sounds.original)"
    ) == [True, True, False, False]
    assert not tab.value("byId('play').disabled")
    tab.value("showClip(3)")
    assert tab.value("byId('play').disabled")
    tab.press(" ")
    tab.press("2")
    assert not tab.value("player.playing")
    assert tab.complaints() == []
    tab.close()


# --- finding, sending on, keeping ---------------------------------------------------------------


def _hash(tab: Tab) -> dict[str, list[str]]:
    words = tab.value("location.hash").removeprefix("#")
    return parse_qs(words, keep_blank_values=True, strict_parsing=True)


def test_an_address_shows_the_same(browser: Browser, folder: Path, tab: Tab) -> None:
    """Clip, sound, filters, order and loudness stand in it; who opens it sees what was seen. It
    goes with what is done, and back by hand."""
    tab.press("j")
    tab.press("3")
    tab.press("l")
    tab.choose("#order", "name")
    tab.choose("#by-verdict", "explanation holds")
    assert _hash(tab) == {
        "clip": [CLIPS[WRONG][0]],
        "explained": [CLASSES[CLIPS[WRONG][1]]],
        "sound": ["removal"],
        "loudness": ["same"],
        "sort": ["name"],
        "show": ["explanation holds"],
    }
    seen = """[page.clip, page.part, byId("level").checked, byId("order").value,
        byId("by-verdict").value, location.hash, page.shown]"""
    before = tab.value(seen)
    again = browser.blank()
    again.call("Page.navigate", url=tab.value("location.href"))
    again.until("document.readyState === 'complete' && location.href !== 'about:blank'")
    assert again.value(seen) == before
    assert again.complaints() == []
    again.close()
    tab.value("location.hash = ''")
    tab.until("page.shown.length === 4")
    assert tab.value("[byId('order').value, byId('level').checked]") == ["as listed", False]


def test_an_address_of_a_cell_and_of_nothing(tab: Tab, folder: Path) -> None:
    """A cell of the table of confusions shows its clips alone, until all are asked for; a clip
    that is not on the page is said not to be."""
    _, loud, _, label = CLIPS[WRONG]
    words = {"label": CLASSES[label], "said": CLASSES[loud]}
    tab.value(f"location.hash = {urlencode(words)!r}")
    tab.until("page.shown.length === 1")
    assert _shown(tab) == [CLIPS[WRONG][0]]
    assert tab.value("byId('cell').firstChild.textContent") == (
        f"Only clips labelled {CLASSES[label]} and taken for {CLASSES[loud]}."
    )
    tab.click("#no-cell")
    assert len(_shown(tab)) == 4 and "label" not in _hash(tab)
    tab.value("location.hash = 'clip=nowhere.wav'")
    tab.until("!byId('trouble').hidden")
    assert "no clip “nowhere.wav” on this page" in tab.value("byId('trouble').textContent")


def test_clips_are_found_by_their_names(tab: Tab) -> None:
    """By all words of the search, whatever their case; the keys are letters there."""
    tab.press("/")
    assert tab.value("document.activeElement.id") == "by-name"
    for letter in "PASS j":
        tab.press(letter)
    assert tab.value("byId('by-name').value") == "PASS j"
    assert _shown(tab) == []
    tab.value(
        "byId('by-name').value = 'WD pass'; byId('by-name').dispatchEvent(new Event('input'))"
    )
    assert _shown(tab) == [CLIPS[1][0]]
    assert _hash(tab)["find"] == ["WD pass"]


def test_orders_order(tab: Tab, folder: Path) -> None:
    """The mistake first; the explanation that bears least first, and that is the silent one; by
    the class's fall, by its probability, by name."""
    clips = _explained(folder)

    def order(word: str) -> list[int]:
        tab.choose("#order", word)
        shown: list[int] = tab.value("page.shown")
        return shown

    assert order("surest mistakes")[0] == WRONG
    assert order("least faithful")[0] == DISAGREEING
    falls = [c["probability"]["original"] - c["probability"]["removal"] for c in clips]
    assert [falls[i] for i in order("FF, least")] == sorted(falls)
    assert [falls[i] for i in order("FF, greatest")] == sorted(falls, reverse=True)
    sure = [c["probability"]["original"] for c in clips]
    assert [sure[i] for i in order("confidence, greatest")] == sorted(sure, reverse=True)
    assert [sure[i] for i in order("confidence, least")] == sorted(sure)
    names = order("name")
    assert names == tab.value(
        "[0, 1, 2, 3].sort((a, b) => facts.clips[a].name.localeCompare(facts.clips[b].name))"
    )
    assert order("as listed") == [0, 1, 2, 3]
    # j goes through the list as it is shown.
    tab.choose("#order", "surest mistakes")
    tab.value(f"showClip({WRONG})")
    tab.press("j")
    assert tab.value("page.clip === page.shown[1]")


def test_notes_and_ratings_stay_and_are_exported(browser: Browser, folder: Path) -> None:
    """They are there when the page is opened again, mark their clips, and make a table that csv
    readers read, whatever was typed; taken back, nothing is left of them."""
    note = 'too much "rain",\nand late; 🐕'
    tab = browser.open(folder / "index.html")
    assert tab.value("byId('export').disabled")
    tab.press("j")
    tab.choose("#rating", "4")
    tab.value(
        f"byId('note').value = {json.dumps(note)}; byId('note').dispatchEvent(new Event('input'))"
    )
    assert tab.value("byId('kept').textContent").startswith("1 clip has a note or a rating")
    tab.close()
    tab = browser.open(folder / "index.html")
    assert tab.value("[byId('rating').value, byId('note').value]") == ["", ""]
    assert "★★★★ ✎" in tab.value("byId('clips').children[1].textContent")
    tab.choose("#by-verdict", "rated")
    assert tab.value("[byId('rating').value, byId('note').value]") == ["4", note]
    tab.value("window.saved = []; save = (...given) => saved.push(given)")
    tab.click("#export")
    ((text, kind, name),) = tab.value("saved")
    assert (kind, name) == ("text/csv", "notes.csv")
    (row,) = csv.DictReader(io.StringIO(text, newline=""))
    item = _explained(folder)[1]
    assert {k: row[k] for k in ("clip", "class", "rating", "note", "right", "holds")} == {
        "clip": item["clip"],
        "class": item["class"],
        "rating": "4",
        "note": note,
        "right": "false",
        "holds": "true",
    }
    assert float(row["removal"]) == item["probability"]["removal"]
    tab.choose("#rating", "")
    tab.value("byId('note').value = ''; byId('note').dispatchEvent(new Event('input'))")
    assert tab.value("byId('export').disabled && localStorage.length === 0")
    assert tab.complaints() == []
    tab.close()


def test_what_is_downloaded_is_what_is_heard(tab: Tab, folder: Path) -> None:
    """The sound that is chosen, under the clip's name and its own, as the page has it."""
    tab.value(
        """window.saved = []; save = (content, type, name) =>
        saved.push([btoa(String.fromCharCode(...new Uint8Array(content))), type, name])"""
    )
    tab.press("j")
    tab.press("2")
    tab.click("#download")
    ((content, kind, name),) = tab.value("saved")
    assert (kind, name) == ("audio/flac", ".._.._etc_pass_wd_Hörner_Straße_explanation.flac")
    got, _ = soundfile.read(io.BytesIO(base64.b64decode(content)))
    wanted, _ = soundfile.read(folder / _explained(folder)[1]["folder"] / "explanation.wav")
    assert np.abs(got - wanted).max() < 1e-4


_MASK_ALONE = "getComputedStyle(byId('mask-picture')).visibility"


def test_same_loudness(tab: Tab, folder: Path) -> None:
    """The three are of different levels, which the page says; with the switch they are heard at
    one, none is cut, and it is said by how many dB each was changed."""
    place = folder / _explained(folder)[0]["folder"]
    parts = ("original", "explanation", "removal")
    of = {part: _level(place / f"{part}.wav") for part in parts}
    less = {part: 20 * math.log10(of[part] / of["original"]) for part in parts}
    value = tab.value("byId('levels').textContent").replace("−", "-")
    assert value.startswith("Level against the original: explanation ")
    shown = [float(word) for word in re.findall(r"[-+]\d+\.\d", value)]
    assert shown == pytest.approx([less["explanation"], less["removal"]], abs=0.15)
    assert tab.value(_MASK_ALONE) == "visible"
    tab.press("l")
    gains = tab.value("gains()")
    assert [20 * math.log10(gains[p] / gains["original"]) for p in parts] == pytest.approx(
        [-less[p] for p in parts], abs=0.15
    )
    peaks = {p: np.abs(soundfile.read(place / f"{p}.wav")[0]).max() for p in parts}
    assert max(gains[p] * peaks[p] for p in parts) < 1
    value = tab.value("byId('levels').textContent").replace("−", "-")
    shown = [float(word) for word in re.findall(r"[-+]\d+\.\d", value)]
    assert shown == pytest.approx([20 * math.log10(gains[p]) for p in parts], abs=0.06)
    tab.value("byId('loop').click()")
    _play(tab)
    heard = []
    for key in "123":
        tab.press(key)
        tab.browser.listen(0.35)
        heard.append(tab.value(_HEARD)[0])
    assert heard == pytest.approx([heard[0]] * 3, rel=0.1)


def test_sounds_beside_the_page_come_when_asked_for(browser: Browser, tmp_path: Path) -> None:
    """The page has the words alone of hundreds of clips; a clip's sounds and pictures come from its
    folder when it is chosen, and play. A folder that was left behind is said to be."""
    run = tmp_path / "run"
    facts = [{"name": item["clip"], **item} for item in write_run(run)]
    rate, t = 8000, np.arange(16000) / 8000
    picture = spectrogram_picture(np.ones((129, 50)), rate, 1.0)
    media = MediaList(0, beside=tmp_path)
    for n in range(4):
        (tmp_path / f"a #{n}%").mkdir()
        sine = flac((0.5 * np.sin(2 * np.pi * (500 + 200 * n) * t)).astype(np.float32), rate)
        sounds = dict.fromkeys(("original", "explanation", "removal"), sine)
        media.append(Media(rate, 2.0, sounds, {"original": picture}), f"a #{n}%")
    path = tmp_path / "index.html"
    write_listening_page(path, facts, media, title="t")
    (tmp_path / "a #3%" / BESIDE).unlink()
    tab = browser.open(path)
    tab.until("!byId('play').disabled")
    assert tab.requests() == [path.as_uri(), (tmp_path / "a #0%" / BESIDE).as_uri()]
    tab.press("r")
    _play(tab)
    for n in (1, 2):
        tab.press("j")
        tab.until(f"page.clip === {n} && player.playing && position() > 0.3")
        assert tab.value(_HEARD)[1] == pytest.approx(500 + 200 * n, abs=15)
    assert tab.value("byId('spectrogram').naturalWidth") > 0
    assert tab.value(_MASK_ALONE) == "hidden", "there is none"
    assert tab.complaints() == []
    tab.press("j")
    tab.until("!byId('trouble').hidden")
    assert "keep the folder as a whole" in tab.value("byId('trouble').textContent")
    assert tab.value("byId('play').disabled && !player.playing")
    tab.close()


# --- for everyone, everywhere -------------------------------------------------------------------


# The least contrast of any text with what lies behind it, as WCAG 2 has it, and whose it is.
_CONTRAST = """(() => {
  const pen = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    pen.clearRect(0, 0, 1, 1); pen.fillStyle = colour; pen.fillRect(0, 0, 1, 1);
    return [...pen.getImageData(0, 0, 1, 1).data].map((v) => v / 255);
  };
  const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const colour = rgba(getComputedStyle(e).backgroundColor);
      if (colour[3] > 0.99) return colour;
    }
    throw new Error("nothing lies behind");
  };
  let least = [99, ""], seen = 0;
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.checkVisibility() || e.matches("script, :disabled")) continue;
    const style = getComputedStyle(e);
    const text = rgba(e instanceof SVGElement ? style.fill : style.color);
    const [a, b] = [light(text), light(behind(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    seen += 1;
    if (ratio < least[0]) least = [ratio, e.outerHTML.slice(0, 90)];
  }
  return [...least, seen];
})()"""


@pytest.mark.parametrize("page", ["index.html", "figures.html", "start.html"])
def test_text_is_legible_in_light_and_dark(browser: Browser, folder: Path, page: str) -> None:
    """At least 4.5 to 1, whatever is selected, in both schemes; and they are two schemes."""
    tab = browser.open(folder / page)
    grounds = set()
    for scheme in ("light", "dark"):
        tab.scheme(scheme)
        if page == "index.html":
            tab.click("#components button")
            tab.press(" ")
        elif page == "figures.html":
            tab.value("document.querySelector('details').open = true")
        ratio, where, seen = tab.value(_CONTRAST)
        assert ratio >= 4.5, (scheme, where)
        assert seen > 30
        grounds.add(tab.value("getComputedStyle(document.body).backgroundColor"))
        if page == "index.html":
            tab.press("?")
            assert tab.value(_CONTRAST)[0] >= 4.5
            tab.press("Escape")
    assert len(grounds) == 2
    assert tab.complaints() == []
    assert tab.requests() == [(folder / page).as_uri()]
    tab.close()


@pytest.mark.parametrize("page", ["index.html", "figures.html", "start.html"])
def test_fits_a_phone(browser: Browser, folder: Path, page: str) -> None:
    """At 360 pixels nothing runs over the edge but what scrolls by itself, and what is touched is
    large enough."""
    tab = browser.open(folder / page)
    tab.resize(360, 740, mobile=True)
    tab.browser.listen(0.1)
    assert tab.value("[innerWidth, document.documentElement.scrollWidth]") == [360, 360]
    assert (
        tab.value(
            """[...document.querySelectorAll("body *")].filter((e) => e.checkVisibility() &&
        !e.closest(".scroll, svg, #clips") && e.getBoundingClientRect().right > 361)
        .map((e) => e.outerHTML.slice(0, 80))"""
        )
        == []
    )
    if page == "index.html":
        heights = tab.value(
            "[...document.querySelectorAll('.transport button, .component, select')]"
            ".filter((e) => !e.matches('.rest')).map((e) => e.offsetHeight)"
        )
        assert min(heights) >= 36
        tab.click("#play")
        tab.until("player.playing")
    assert tab.complaints() == []
    tab.close()


@pytest.mark.parametrize("page", ["index.html", "figures.html", "start.html"])
def test_every_control_has_a_name_and_shows_its_focus(
    browser: Browser, folder: Path, page: str
) -> None:
    """By the tab key one comes to every control; each has a name, and an outline in focus."""
    tab = browser.open(folder / page)
    nodes = tab.call("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "combobox", "slider", "checkbox", "image", "region", "navigation", "link"}
    named = [
        (n["role"]["value"], n.get("name", {}).get("value", ""))
        for n in nodes
        if not n.get("ignored") and n.get("role", {}).get("value") in roles
    ]
    assert len(named) > 5
    assert all(name.strip() for _, name in named), named
    wanted = tab.value(
        "[...document.querySelectorAll('a[href], button, select, input, textarea, summary, "
        '[tabindex="0"]\')]'
        ".filter((e) => e.checkVisibility() && !e.disabled).length"
    )
    met = set()
    for _ in range(wanted + 1):
        tab.press("Tab")
        value = tab.value(
            """(() => { const e = document.activeElement, s = getComputedStyle(e);
            if (e === document.body) return null;
            e.dataset.met ??= String(Math.random());
            return [e.dataset.met, s.outlineStyle, parseFloat(s.outlineWidth), e.outerHTML]; })()"""
        )
        if value is None:
            continue
        met.add(value[0])
        assert value[1] != "none" and value[2] >= 2, value[3]
    assert len(met) == wanted
    assert tab.complaints() == []
    tab.close()


@pytest.mark.parametrize("given", ["srcdoc", "blob"])
def test_in_a_sandboxed_frame(browser: Browser, folder: Path, tmp_path: Path, given: str) -> None:
    """As MLflow shows it: a frame without an origin, its page given as text or as a blob. It
    plays, filters, and asks for nothing."""
    text = (folder / "index.html").read_text(encoding="utf-8")
    outer = tmp_path / "outer.html"
    frame_of = '<iframe sandbox="allow-scripts" width="1000" height="700"'
    if given == "srcdoc":
        inner = f'{frame_of} srcdoc="{html.escape(text)}"></iframe>'
    else:
        # A page given as text may not be ended by what is in it, here neither.
        inside = json.dumps(text).replace("<", "\\u003c")
        inner = f"""{frame_of}></iframe><script>document.querySelector("iframe").src =
            URL.createObjectURL(new Blob([{inside}], {{ type: "text/html" }}))</script>"""
    outer.write_text(f"<!doctype html>{inner}", encoding="utf-8")
    tab = browser.open(outer, 1100, 760)
    frame = tab.frame()
    frame.call("Runtime.enable")
    frame.call("Log.enable")
    frame.until("document.readyState === 'complete' && page.clip === 0")
    assert frame.value("origin") == "null"
    with pytest.raises(RuntimeError, match="SecurityError"):
        frame.value("localStorage.length")
    assert frame.value("byId('spectrogram').decode().then(() => true)")
    x, y = frame.value(
        "(({ left, top }) => [left + 9, top + 9])(byId('play').getBoundingClientRect())"
    )
    for _ in range(10):  # A frame just made may not have been drawn yet, and misses a click.
        tab.click_at(x + 10, y + 10)  # The outer page's margin and the frame's border.
        tab.browser.listen(0.5)
        if frame.value("player.turn > 1"):
            break
    frame.until("player.playing && position() > 0.1")
    frame.choose("#by-verdict", "interpreter disagrees")
    assert _shown(frame) == [CLIPS[DISAGREEING][0]]
    # What needs more than a frame gives is not offered, and a note is said to be lost.
    assert frame.value("byId('download').hidden && byId('export').hidden")
    frame.choose("#rating", "3")
    assert "lost when this page is closed" in frame.value("byId('kept').textContent")
    assert [c for c in frame.complaints() if "localStorage" not in c] == []
    asked = "performance.getEntriesByType('resource').map((r) => r.name)"
    assert [url for url in frame.value(asked) if not url.startswith("data:")] == []
    assert tab.complaints() == []
    assert [url for url in tab.requests() if not url.startswith("blob:")] == [outer.as_uri()]
    tab.close()


@pytest.mark.parametrize("page", ["index.html", "start.html"])
def test_figures_say_what_they_mean(browser: Browser, folder: Path, page: str) -> None:
    """To a pointer over a short name, and to keys and fingers in a line that unfolds: what it is,
    its unit, which way is better; each figure once, however many runs have it."""
    tab = browser.open(folder / page)
    meanings = [METRICS[name].meaning for name in ("faithfulness_probability", "kept")]
    titles = tab.value("[...document.querySelectorAll('abbr')].slice(0, 2).map((e) => e.title)")
    assert titles == meanings
    shown = (
        "[...document.querySelectorAll('.means dd')].filter((e) => e.checkVisibility())"
        ".map((e) => e.textContent)"
    )
    assert tab.value(shown) == []
    tab.value("document.querySelector('.means summary').focus()")
    tab.press(" ")
    assert tab.value(shown) == meanings
    assert not tab.value("typeof player !== 'undefined' && player.playing")
    assert tab.complaints() == []
    tab.close()


def test_the_start_page_finds_runs_and_leads_on(browser: Browser, folder: Path) -> None:
    """By words of what stands in their cards; an address of MLflow's own leads to its pages."""
    tab = browser.open(folder / "start.html")
    shown = "[...document.querySelectorAll('#runs h2')].filter((h) => h.checkVisibility()).length"
    n = len(CLASSES) + 1
    assert tab.value(shown) == n
    assert tab.value("document.getElementById('count').textContent") == f"{n} of {n} runs"
    tab.click("#find")
    for letter in "DOG":
        tab.press(letter)
    assert tab.value(shown) == 1
    assert tab.value("document.querySelectorAll('#runs b, #runs script').length") == 0
    assert tab.complaints() == []
    tab.value("location.hash = '#/experiments/1'; location.reload()")
    tab.browser.listen(1)
    assert "file:///mlflow" in tab.requests()
    tab.close()


def test_classes_with_their_components(browser: Browser, tmp_path: Path) -> None:
    """Where nothing but components is heard: each is chosen by a click, and plays; a class with
    none says so, and nothing can be played."""
    rate, t = 8000, np.arange(8000) / 8000
    tone = flac((0.5 * np.sin(2 * np.pi * 900 * t)).astype(np.float32), rate)
    picture = spectrogram_picture(np.ones((129, 50)), rate, 1.0)
    one = {"component": 7, "relevance": 0.5, "peak_hz": 0.0, "bin_hz": 43.0, "spectrum": [1] * 40}
    facts: list[dict[str, Any]] = [
        {"name": "dog", "class": "dog", "duration_s": 1.0, "about": "Those.", "components": [one]},
        {"name": "cat", "class": "cat", "duration_s": 1.0, "about": "", "components": []},
    ]
    facts[1]["lines"] = ["No component speaks for cat."]
    media = [Media(rate, 1.0, {"7": tone}, {"sound 7": picture}), Media(rate, 1.0, {}, {})]
    path = tmp_path / "index.html"
    write_listening_page(path, facts, media, title="t", parts=(), noun="classes")
    tab = browser.open(path)
    assert tab.value("byId('count').textContent") == "2 of 2 classes"
    shown = "['notes', 'export', 'mask-picture', 'level'].some((id) => byId(id).checkVisibility())"
    assert not tab.value(shown)
    assert "below 22 Hz" in tab.value("byId('components').textContent")
    tab.press("r")
    tab.click("#components button")
    tab.until("player.playing && position() > 0.3")
    assert tab.value(_HEARD)[1] == pytest.approx(900, abs=15)
    assert tab.value("byId('spectrogram').naturalWidth") > 0
    tab.press("j")
    tab.until("page.clip === 1")
    assert tab.value("byId('play').disabled && !player.playing")
    assert tab.value("byId('verdicts').textContent") == "No component speaks for cat."
    assert tab.complaints() == []
    tab.close()


class _Halves(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        half = x.shape[1] // 2
        return torch.stack([x[:, :half].square().sum(1), x[:, half:].square().sum(1)], dim=1)


def test_an_audit(browser: Browser, tmp_path: Path) -> None:
    """A suspect with its five sounds, one without a sound of its own with three, and a typical clip
    of a group with the three of its explanation and its classes; each is seen and plays, and what
    there is not cannot be chosen."""
    domain = Domain(8000, 256, 64)
    subject = Subject(l2i.wrap(_Halves(), 8000, ["first", "second"]), domain)
    palette = Palette(domain, None, torch.device("cpu"))
    x = np.random.default_rng(0).normal(size=(2, 8000)).astype(np.float32)
    flags, numbers = np.ones(1, np.bool_), np.arange(1)
    usual = np.zeros(domain.n_bins, np.float32)
    facts = {"words": "where", "score": 0.5, "sentence": "It decides."}
    entries = []
    for cue in (palette.cues[0], Trait("ends silent", 0.2)):
        trial = Trial(0, cue, -20.0, 0.5, 0.5, usual)
        proof = Proof(trial, numbers, numbers, flags, ~flags, flags, ~flags)
        entries.append(suspect_entry(facts, proof, subject, palette, *x))
    heard = hear(subject.classifier, torch.from_numpy(x[:1]), domain)
    way = make_method("full", subject, MethodSettings())
    group = {"clips": 3, "right": 0.5, "recording": None}
    e = explain_by(way, heard, 0, method="full")
    entries.append(group_entry(e, group, 1, 2, "clip-1"))
    path = tmp_path / "audit.html"
    write_audit_page(path, entries, title="t", summary=[], notes=["A note."])
    tab = browser.open(path)
    assert "A note." in tab.value("document.querySelector('header').textContent")
    choices = "[...document.querySelectorAll('#parts button')].map((b) => !b.disabled)"
    for number, there in enumerate(([1, 1, 1, 1, 1], [1, 0, 0, 1, 1], [1, 1, 1, 0, 0])):
        tab.until(f"page.clip === {number}")
        assert tab.value(choices) == [bool(one) for one in there]
        assert tab.value("byId('spectrogram').naturalWidth") > 0
        words = tab.value("byId('clip').innerText")
        assert not re.search("undefined|NaN|null", words), words
        assert tab.value("byId('likeliest').checkVisibility()") == (number == 2)
        if not number:
            _play(tab)
        # And goes on with the next.
        tab.until("player.playing && position() > 0.1")
        tab.press("j")
    assert "Group 1 of 2: 3 clips, 50 % of them right." in words and "second" in words
    assert tab.complaints() == []
    tab.close()


def test_two_runs_side_by_side(browser: Browser, tmp_path: Path) -> None:
    """The same clip by both: each run's explanation and removal can be chosen and heard, from where
    the other one is; what each says stands below."""
    domain = Domain(8000, 256, 64)
    subject = Subject(l2i.wrap(_Halves(), 8000, ["first", "second"]), domain)
    x = np.random.default_rng(0).normal(size=(1, 16000)).astype(np.float32)
    heard = hear(subject.classifier, torch.from_numpy(x), domain)
    each = {
        letter: explain_by(make_method(method, subject, MethodSettings()), heard, 0, method=method)
        for letter, method in (("A", "full"), ("B", "loudest"))
    }
    parts = ["original", "explanation A", "explanation B", "removal A", "removal B"]
    media = MediaList()
    media.append(side_by_side._media(each), "clip-01")
    told = [f"{letter} says first. {e.verdict}" for letter, e in each.items()]
    facts = side_by_side._facts("bell-1", each, ["first"], told, "FF A 0.9, B 0.1")
    path = tmp_path / "index.html"
    write_listening_page(path, [facts], media, title="A and B", parts=[(p, p) for p in parts])
    tab = browser.open(path)
    buttons = "[...document.querySelectorAll('#parts button')]"
    assert tab.value(f"{buttons}.map((b) => b.firstChild.textContent)") == parts
    assert tab.value(f"{buttons}.every((b) => !b.disabled)")
    words = tab.value("byId('clip').innerText")
    assert "A says first" in words and "B says first" in words
    assert not re.search("undefined|NaN|null", words), words
    _play(tab)
    tab.value(f"{buttons}[2].click()")
    tab.until("page.part === 'explanation B' && player.playing && position() > 0.3")
    assert tab.complaints() == []
    tab.close()


def test_mlflows_table_has_the_runs_own_figures_first(browser: Browser, tmp_path: Path) -> None:
    """The second group of its rows; where there is one, and no head, all stay where they are."""

    def order(*rows: str) -> list[str]:
        head = "<div role=columnheader data-component-id=x_runviewmetricstable.tsx_3>Metric</div>"
        lines = "".join(f"<div role=row>{row}</div>" for row in (head, *rows))
        text = f"<style>{asset('mlflow.css')}</style><div id=t>{lines}</div>"
        (tmp_path / "table.html").write_text(text, encoding="utf-8")
        tab = browser.open(tmp_path / "table.html")
        seen: list[str] = tab.value(
            "[...document.querySelectorAll('#t > div')].map((d) => "
            "[d.getBoundingClientRect().top, d.textContent]).sort((a, b) => a[0] - b[0])"
            ".map((x) => x[1])"
        )
        tab.close()
        return seen

    groups = (
        "<b>System</b>",
        "<a>cpu</a>",
        "<a>disk</a>",
        "<b>Model</b>",
        "<a>FF</a>",
        "<a>AI</a>",
    )
    assert order(*groups) == ["Metric", "Model", "FF", "AI", "System", "cpu", "disk"]
    assert order("<a>FF</a>", "<a>AI</a>") == ["Metric", "FF", "AI"]


def test_class_table_sorts(browser: Browser, folder: Path) -> None:
    """A click on a head sorts, a second one turns it round; cells without a figure stay last."""
    tab = browser.open(folder / "figures.html")

    def column(n: int) -> list[str]:
        value: list[str] = tab.value(
            "[...document.querySelectorAll('.sortable tbody tr')]"
            f".map((row) => row.cells[{n}].textContent)"
        )
        return value

    def click(n: int) -> str:
        tab.click(f".sortable thead th:nth-child({n + 1}) button")
        value: str = tab.value(
            f"document.querySelectorAll('.sortable thead th')[{n}].getAttribute('aria-sort')"
        )
        return value

    assert click(2) == "descending"
    assert column(2) == ["1.000", "1.000", "0.500", "0.250", "–"]
    assert click(2) == "ascending"
    assert column(2) == ["0.250", "0.500", "1.000", "1.000", "–"]
    assert click(0) == "ascending"
    assert sorted(column(0)) == sorted(CLASSES[:5])
    assert tab.value("document.querySelectorAll('[aria-sort=ascending]').length") == 1
    assert click(1) == "descending"
    assert column(1) == ["7", "6", "5", "4", "3"]
    assert tab.value("document.querySelectorAll('svg.chart').length") == 4
    drawn = tab.value("[...document.querySelectorAll('svg.chart')].map((s) => s.clientHeight)")
    assert all(math.isfinite(h) and h > 100 for h in drawn)
    assert tab.complaints() == []
    tab.close()
