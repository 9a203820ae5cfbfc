"""What the package relies on in every registered data set, asked of a miniature of each.

First the contract, which a new data set meets without a test of its own; then the splits; then
what each layout promises besides, and what is said where it is broken.
"""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from l2i import config
from l2i.data import DATASETS, card, open_dataset
from l2i.data.base import DataSet, Report, make_split, stratify, thin
from l2i.data.folder import sounds_in
from l2i.errors import DataError, UnknownName
from l2i.storage import MARK
from l2i.types import Clip, Split, Task
from tests import miniatures
from tests.miniatures import SUST, Recording

# Whoever has a marker keeps sound files in a folder.
FILES = [name for name in DATASETS if card(name).marker]


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[config.Dataset]]:
    """Each data set's miniatures, made once for the module; nobody changes them."""
    made: dict[str, list[config.Dataset]] = {}

    def ask(name: str) -> list[config.Dataset]:
        if name not in made:
            made[name] = miniatures.make(name, tmp_path_factory.mktemp(name))
        return made[name]

    return ask


@pytest.fixture(params=list(DATASETS))
def forms(
    request: pytest.FixtureRequest, wanted: Callable[[str], list[config.Dataset]]
) -> list[config.Dataset]:
    """One data set, in every form its miniature has."""
    return wanted(request.param)


@pytest.fixture(params=list(DATASETS))
def data_sets(
    request: pytest.FixtureRequest, wanted: Callable[[str], list[config.Dataset]]
) -> list[DataSet]:
    """The same, opened."""
    return [open_dataset(w) for w in wanted(request.param)]


@pytest.fixture(params=FILES)
def copied(
    request: pytest.FixtureRequest,
    wanted: Callable[[str], list[config.Dataset]],
    tmp_path: Path,
) -> config.Dataset:
    """A data set of files, in a copy that may be damaged."""
    original = wanted(request.param)[0]
    root = tmp_path / "copy"
    shutil.copytree(original.data_dir, root)
    return original.model_copy(update={"data_dir": str(root)})


def _sides(split: Split) -> list[tuple[Clip, ...]]:
    return [split.train, split.validate, split.test]


def _file(clip: Clip) -> Path:
    assert clip.path is not None
    return clip.path


# --- the contract -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", DATASETS)
def test_a_card_can_be_had_without_the_data(name: str) -> None:
    """Name, licence, source and classes are told though nothing is at hand."""
    c = card(name)
    assert c.name == name
    assert c.title and c.licence and c.splits and c.label_rules
    assert len(set(c.classes)) == len(c.classes)
    assert c.sample_rate > 0 and c.duration_s > 0
    assert len({remote.name for remote in c.remotes}) == len(c.remotes)
    if c.remotes:
        assert c.citation and c.homepage and c.folders and c.marker
        assert all(remote.url.startswith("https://") for remote in c.remotes)


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_has_a_preset(name: str) -> None:
    """`l2i train --dataset NAME` finds settings of its own."""
    assert name in config.preset_names()
    assert config.resolve(dataset=name).dataset.name == name


def test_a_data_set_that_is_not_known_is_said_with_the_nearest() -> None:
    """A slip of the pen is answered with the name that was meant."""
    with pytest.raises(UnknownName, match="did you mean 'esc50'"):
        open_dataset(config.Dataset(name="esc5"))


def test_every_data_set_keeps_the_protocol(data_sets: list[DataSet]) -> None:
    """Card, root, form, clips, split, load, parts and check are there."""
    for data in data_sets:
        assert isinstance(data, DataSet)
        assert (data.sample_rate, data.n_samples) == (
            miniatures.SAMPLE_RATE,
            round(miniatures.DURATION_S * miniatures.SAMPLE_RATE),
        )
        # Either files, whose bytes tell what they are, or a generator that says so.
        assert (data.root is None) == bool(data.generator)


def test_clips_have_unique_ids_and_labels_of_the_card(data_sets: list[DataSet]) -> None:
    """Labels ascend, lie within the classes, and are exactly one in single-label data."""
    for data in data_sets:
        clips, classes = data.clips(), data.card.classes
        assert len(classes) >= 2
        assert len({clip.id for clip in clips}) == len(clips) > 0
        for clip in clips:
            assert clip.id and clip.group
            assert list(clip.labels) == sorted(set(clip.labels))
            assert set(clip.labels) <= set(range(len(classes)))
            if data.card.task is Task.SINGLE_LABEL:
                assert len(clip.labels) == 1
        assert {label for clip in clips for label in clip.labels} == set(range(len(classes)))


def test_multi_label_miniatures_are_multi_label(data_sets: list[DataSet]) -> None:
    """Where the card says so, some clip has two labels or none."""
    for data in data_sets:
        several = any(len(clip.labels) != 1 for clip in data.clips())
        assert several == (data.card.task is Task.MULTI_LABEL)


def test_the_same_data_have_the_same_clips_in_the_same_order(forms: list[config.Dataset]) -> None:
    """Opened twice, a data set lists equal clips."""
    for wanted in forms:
        assert open_dataset(wanted).clips() == open_dataset(wanted).clips()


def test_ids_do_not_depend_on_where_the_data_lie(copied: config.Dataset, tmp_path: Path) -> None:
    """Moved to another folder, every clip keeps its id, labels, fold, split and group."""
    before = open_dataset(copied)
    moved = shutil.move(copied.data_dir, tmp_path / "another place")
    after = open_dataset(copied.model_copy(update={"data_dir": str(moved)}))
    assert [replace(c, path=None) for c in after.clips()] == [
        replace(c, path=None) for c in before.clips()
    ]
    assert all(_file(clip).is_file() for clip in after.clips())


def test_a_data_set_is_found_by_its_shelf_too(copied: config.Dataset, tmp_path: Path) -> None:
    """`data_dir` may name the folder the data set stands in, where the card knows its name."""
    for name in card(copied.name).folders:
        shelf = tmp_path / "shelf" / name
        shutil.copytree(copied.data_dir, shelf / name)
        data = open_dataset(copied.model_copy(update={"data_dir": str(shelf)}))
        assert data.root == shelf / name


def test_sides_of_a_split_are_disjoint_and_cut_no_group(data_sets: list[DataSet]) -> None:
    """No clip is on two sides, no group on two either, in any fold, with any seed."""
    for data in data_sets:
        for fold in data.card.folds or (1,):
            for seed in (0, 1):
                split = data.split(fold, 0.2, seed)
                sides = _sides(split)
                assert all(sides)
                ids = [clip.id for side in sides for clip in side]
                assert len(set(ids)) == len(ids)
                assert {clip for side in sides for clip in side} <= set(data.clips())
                groups = [{clip.group for clip in side} for side in sides]
                assert not groups[0] & groups[1]
                assert not groups[0] & groups[2]
                assert not groups[1] & groups[2]


def test_every_class_is_trained_on(data_sets: list[DataSet]) -> None:
    """The training side has a clip of every class in every fold."""
    for data in data_sets:
        for fold in data.card.folds or (1,):
            train = data.split(fold, 0.2, 0).train
            present = {label for clip in train for label in clip.labels}
            assert present == set(range(len(data.card.classes)))


def test_the_folds_test_every_clip_once(data_sets: list[DataSet]) -> None:
    """Test sides are the folds and share out the data set; split by name, the clips named test."""
    for data in data_sets:
        clips = data.clips()
        if data.card.folds:
            tested = [c for fold in data.card.folds for c in data.split(fold, 0.1, 0).test]
            assert Counter(tested) == Counter(clips)
            assert all(c.fold == 2 for c in data.split(2, 0.1, 0).test)
        else:
            assert data.split(1, 0.1, 0).test == tuple(c for c in clips if c.split == "test")


def test_a_split_depends_on_its_seed_and_on_nothing_else(data_sets: list[DataSet]) -> None:
    """The same seed gives the same split; no seed touches the test side or loses a clip."""
    for data in data_sets:
        splits = [data.split(1, 0.3, seed) for seed in range(4)]
        assert splits == [data.split(1, 0.3, seed) for seed in range(4)]
        assert len({split.test for split in splits}) == 1
        assert len({frozenset(split.train + split.validate) for split in splits}) == 1
        if not any(clip.split == "validate" for clip in data.clips()):
            assert len({split.validate for split in splits}) > 1


def test_a_limit_thins_every_side(data_sets: list[DataSet]) -> None:
    """At most so many clips on each side, each of which was there before."""
    for data in data_sets:
        whole, thinned = data.split(1, 0.2, 0), data.split(1, 0.2, 0, limit=2)
        for before, after in zip(_sides(whole), _sides(thinned), strict=True):
            assert len(after) == min(2, len(before))
            assert set(after) <= set(before)


def test_a_fold_that_is_not_there_is_refused(data_sets: list[DataSet]) -> None:
    """The message says which folds there are, or that there are none."""
    for data in data_sets:
        folds = ", ".join(map(str, data.card.folds))
        words = f"no fold 9; its folds are {folds}" if folds else "has no folds"
        with pytest.raises(DataError, match=words):
            data.split(9, 0.1, 0)


def test_waveforms_are_finite_float32_of_the_length_asked_for(data_sets: list[DataSet]) -> None:
    """Every clip is ``[S]``, not silent, and the same each time it is loaded."""
    for data in data_sets:
        for clip in data.clips()[:: max(1, len(data.clips()) // 8)]:
            x = data.load(clip)
            assert x.dtype == np.float32 and x.shape == (data.n_samples,)
            assert np.isfinite(x).all() and np.abs(x).max() > 0.01
            assert np.array_equal(x, data.load(clip))


@pytest.mark.parametrize(("rate", "seconds"), [(11025, 0.1), (4000, 0.7), (44100, 0.25)])
def test_any_rate_and_any_length_can_be_asked_for(
    forms: list[config.Dataset], rate: int, seconds: float
) -> None:
    """Clips are resampled, cut and padded to exactly the samples asked for."""
    for wanted in forms:
        data = open_dataset(wanted.model_copy(update={"sample_rate": rate, "duration_s": seconds}))
        assert (data.sample_rate, data.n_samples) == (rate, round(rate * seconds))
        assert data.load(data.clips()[0]).shape == (round(rate * seconds),)


def test_without_a_form_the_cards_own_is_had(forms: list[config.Dataset]) -> None:
    """Sample rate and length are the card's where the config does not say."""
    for wanted in forms:
        data = open_dataset(wanted.model_copy(update={"sample_rate": None, "duration_s": None}))
        c = card(wanted.name)
        assert data.sample_rate == c.sample_rate
        assert data.n_samples == round(c.sample_rate * c.duration_s)


def test_parts_add_up_to_the_clip_or_are_not_known(data_sets: list[DataSet]) -> None:
    """Known parts are the clip's classes and a background; of files nobody knows them."""
    for data in data_sets:
        for clip in data.clips()[:4]:
            parts = data.parts(clip)
            if data.root is not None:
                assert parts == {}
            else:
                assert set(parts) == {data.card.classes[x] for x in clip.labels} | {"background"}
                np.testing.assert_allclose(sum(parts.values()), data.load(clip), atol=1e-6)


def test_a_whole_data_set_passes_its_check(data_sets: list[DataSet]) -> None:
    """Nothing is missing or invalid, and progress is told to the last clip."""
    for data in data_sets:
        told: list[tuple[int, int]] = []
        report = data.check(progress=lambda done, total, told=told: told.append((done, total)))
        n = len(data.clips())
        assert report.ok and report.n_clips == n
        assert told == [(i, n) for i in range(1, n + 1)]


@pytest.mark.parametrize("name", FILES)
def test_a_folder_that_is_not_there_is_said(name: str, tmp_path: Path) -> None:
    """The message names the place, and what to do about it."""
    nowhere = tmp_path / "nowhere"
    with pytest.raises(DataError) as caught:
        open_dataset(config.Dataset(name=name, data_dir=str(nowhere)))
    text = str(caught.value)
    assert str(nowhere) in text
    if card(name).remotes:
        assert f"l2i data fetch {name} --data-dir {nowhere}" in text


@pytest.mark.parametrize("name", FILES)
def test_without_data_dir_the_users_shelf_is_looked_at(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``L2I_DATA_DIR`` names the shelf; a folder of one's own has to be named itself."""
    monkeypatch.setenv("L2I_DATA_DIR", str(tmp_path / "shelf"))
    place = "--data-dir" if name == "folder" else str(tmp_path / "shelf")
    with pytest.raises(DataError, match=place):
        open_dataset(config.Dataset(name=name))


def _damage(path: Path, how: str) -> None:
    if how == "cut in its header":
        path.write_bytes(path.read_bytes()[:20])
    elif how == "no sound at all":
        path.write_bytes(b"<html>404 Not Found</html>" * 20)
    elif how == "no bytes":
        path.write_bytes(b"")
    elif how == "no samples":
        soundfile.write(path, np.zeros(0, np.float32), 8000)
    else:
        x = miniatures.sound([0], 0)
        x[7] = float(how)
        soundfile.write(path, x, 8000, subtype="FLOAT")


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("cut in its header", "cannot be decoded"),
        ("no sound at all", "cannot be decoded"),
        ("no bytes", "is empty"),
        ("no samples", "length is zero"),
        ("nan", "NaN or infinite"),
        ("-inf", "NaN or infinite"),
    ],
)
def test_a_clip_that_cannot_be_used_is_invalid(copied: config.Dataset, how: str, why: str) -> None:
    """`check` names it and why, beside nothing else; `load` refuses it with its path."""
    data = open_dataset(copied)
    victim = data.clips()[3]
    _damage(_file(victim), how)
    report = open_dataset(copied).check()
    assert not report.ok and not report.missing
    assert [str(data.root / name) for name, _ in report.invalid] == [str(victim.path)]
    assert why in report.invalid[0][1]
    with pytest.raises(DataError, match=why) as caught:
        data.load(victim)
    assert str(victim.path) in str(caught.value)
    assert open_dataset(copied).check(decode=False).ok  # Only listening can tell.


def test_a_clip_that_is_gone_is_missing_not_invalid(
    wanted: Callable[[str], list[config.Dataset]], tmp_path: Path
) -> None:
    """Listed without its file, a clip stays in the list and `check` names it, decoding or not."""
    for name in FILES:
        for number, original in enumerate(wanted(name)):
            if not (Path(original.data_dir) / card(name).marker).is_file():
                continue  # With no list, a file that is gone was never there.
            root = tmp_path / f"{name}{number}"
            shutil.copytree(original.data_dir, root)
            place = original.model_copy(update={"data_dir": str(root)})
            victim = open_dataset(place).clips()[3]
            _file(victim).unlink()
            data = open_dataset(place)
            assert victim.id in {clip.id for clip in data.clips()}
            for decode in (True, False):
                report = data.check(decode)
                assert len(report.missing) == 1 and not report.invalid
                assert Path(report.missing[0]).name == _file(victim).name
            with pytest.raises(DataError, match="no sound file"):
                data.load(next(c for c in data.clips() if c.id == victim.id))


def test_clips_of_another_length_are_noted_and_used(copied: config.Dataset) -> None:
    """They are no fault: they come out at the length asked for, and `check` mentions them."""
    data = open_dataset(copied)
    for clip, seconds in zip(data.clips(), (0.1, 0.4), strict=False):
        soundfile.write(_file(clip), miniatures.sound([0], 0, seconds), 8000)
        assert data.load(clip).shape == (data.n_samples,)
    report = data.check()
    assert report.ok
    assert any("2 clips are not 0.25 s long (0.10 to 0.40 s)" in note for note in report.notes)
    soundfile.write(_file(clip), miniatures.sound([0], 0, 0.1), 8000)
    assert any("2 clips are not 0.25 s long (0.10 s)" in note for note in data.check().notes)


def test_silent_clips_are_noted_and_used(copied: config.Dataset) -> None:
    """Those in which nothing is heard up to the length asked for: they are explained by nothing."""
    data = open_dataset(copied)
    assert not any("silent" in note for note in data.check().notes)
    first, other = data.clips()[0], data.clips()[1]
    late = np.concatenate([np.zeros(4000), np.ones(4000)])
    soundfile.write(_file(first), np.zeros(8000), 8000)
    soundfile.write(_file(other), late, 8000)
    report = data.check()
    assert report.ok
    assert any("2 clips are silent, and explained by nothing" in note for note in report.notes)


def _rows(path: Path) -> list[list[str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def _save(path: Path, rows: Iterable[Sequence[str]]) -> None:
    header, *rest = rows
    miniatures.write_csv(path, header, rest)


@pytest.fixture(params=FILES)
def listed(
    request: pytest.FixtureRequest,
    wanted: Callable[[str], list[config.Dataset]],
    tmp_path: Path,
) -> tuple[str, Path, Path]:
    """Name, root and list of a data set of files: a copy of the list, without its sounds."""
    marker = card(request.param).marker
    original = next(w for w in wanted(request.param) if (Path(w.data_dir) / marker).is_file())
    root = tmp_path / "data"
    (root / marker).parent.mkdir(parents=True)
    shutil.copy(Path(original.data_dir) / marker, root / marker)
    return request.param, root, root / marker


def test_a_column_that_is_missing_is_named(listed: tuple[str, Path, Path]) -> None:
    """With the file, and the columns it has."""
    name, root, path = listed
    column = {"folder": "label", "sust": "3_non-machinery-impact_presence"}.get(name, "target")
    rows = _rows(path)
    at = rows[0].index(column)
    _save(path, [row[:at] + row[at + 1 :] for row in rows])
    with pytest.raises(DataError, match=f"lacks the column '{column}'; it has ") as caught:
        miniatures.opened(name, root)
    assert str(path) in str(caught.value) and rows[0][0] in str(caught.value)


def test_a_row_that_is_cut_short_is_named_by_its_line(listed: tuple[str, Path, Path]) -> None:
    """As a list that was not written to its end has one."""
    name, root, path = listed
    rows = _rows(path)
    rows[4] = rows[4][:-1]
    _save(path, rows)
    with pytest.raises(DataError, match=f"line 5: {len(rows[0]) - 1} fields where"):
        miniatures.opened(name, root)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00f", b"a,b\n\x00"])
def test_a_list_that_is_no_csv_is_refused(listed: tuple[str, Path, Path], content: bytes) -> None:
    """Empty, or not UTF-8, or with a NUL: it names the file, whatever is in it."""
    name, root, path = listed
    path.write_bytes(content)
    with pytest.raises(DataError, match=path.name):
        miniatures.opened(name, root)


def test_a_list_with_no_rows_is_refused(listed: tuple[str, Path, Path]) -> None:
    """A first line alone is no data set."""
    name, root, path = listed
    _save(path, _rows(path)[:1])
    with pytest.raises(DataError):
        miniatures.opened(name, root)


def test_spreadsheets_and_windows_may_have_touched_a_list(listed: tuple[str, Path, Path]) -> None:
    """A byte order mark, CRLF line ends and empty lines at the end change nothing."""
    name, root, path = listed
    before = miniatures.opened(name, root).clips()
    text = path.read_text(encoding="utf-8").replace("\n", "\r\n") + "\r\n\r\n"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert miniatures.opened(name, root).clips() == before


@pytest.mark.parametrize("name", ["../evil.wav", "/etc/evil.wav", "..\\evil.wav", "a/../../b.wav"])
def test_a_listed_name_that_leaves_the_folder_is_refused(
    listed: tuple[str, Path, Path], name: str
) -> None:
    """A list fetched from elsewhere never makes us read outside its data set."""
    kind, root, path = listed
    rows = _rows(path)
    column = next(i for i, word in enumerate(rows[0]) if "filename" in word)
    rows[2][column] = name
    _save(path, rows)
    with pytest.raises(DataError, match=r"line 3: the file name .* leaves the data set's folder"):
        miniatures.opened(kind, root)


def test_an_empty_name_is_refused(listed: tuple[str, Path, Path]) -> None:
    """With its line."""
    kind, root, path = listed
    rows = _rows(path)
    rows[2][next(i for i, word in enumerate(rows[0]) if "filename" in word)] = " "
    _save(path, rows)
    with pytest.raises(DataError, match="line 3: the file name is empty"):
        miniatures.opened(kind, root)


# --- splits -----------------------------------------------------------------------------------

_CARD = replace(card("esc10"), name="made", title="Made", classes=("a", "b", "c"), folds=(1, 2, 3))


@st.composite
def _clips(draw: st.DrawFn) -> list[Clip]:
    """Clips of three classes, none to all of which one may carry, in up to twelve groups."""
    n = draw(st.integers(1, 40))
    labels = st.sets(st.integers(0, 2)).map(lambda s: tuple(sorted(s)))
    return [
        Clip(f"clip-{i}", draw(labels), group=f"group-{draw(st.integers(0, 11))}") for i in range(n)
    ]


@given(clips=_clips(), share=st.floats(0.05, 0.9), seed=st.integers(0, 99))
@settings(deadline=None)
def test_stratify_shares_clips_out_and_cuts_no_group(
    clips: list[Clip], share: float, seed: int
) -> None:
    """Each clip is on one side, in the order given; groups are whole; no class is used up."""
    larger, smaller = stratify(clips, share, seed, 3)
    assert Counter(larger + smaller) == Counter(clips)
    assert list(larger) == [c for c in clips if c in set(larger)]
    assert list(smaller) == [c for c in clips if c in set(smaller)]
    assert not {c.group for c in larger} & {c.group for c in smaller}
    for label in {x for c in clips for x in c.labels}:
        assert any(label in c.labels for c in larger)


@given(clips=_clips(), seed=st.integers(0, 99), order=st.randoms(use_true_random=False))
@settings(deadline=None)
def test_stratify_does_not_care_for_the_order(clips: list[Clip], seed: int, order: object) -> None:
    """The same clips in another order are divided in the same way."""
    shuffled = list(clips)
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    for before, after in zip(
        stratify(clips, 0.3, seed, 3), stratify(shuffled, 0.3, seed, 3), strict=True
    ):
        assert set(before) == set(after)


@given(per_class=st.integers(2, 30), share=st.floats(0.05, 0.8), seed=st.integers(0, 99))
@settings(deadline=None)
def test_stratify_takes_the_share_of_every_class(per_class: int, share: float, seed: int) -> None:
    """With clips that are free to go anywhere, each class is within one clip of its share."""
    clips = [Clip(f"{label}-{i}", (label,)) for label in range(3) for i in range(per_class)]
    _, smaller = stratify(clips, share, seed, 3)
    for label in range(3):
        n = sum(label in clip.labels for clip in smaller)
        assert 1 <= n < per_class
        assert abs(n - share * per_class) <= 1


def test_stratify_leaves_whole_a_class_of_one_group() -> None:
    """What cannot be on both sides is trained on."""
    clips = [Clip(f"a-{i}", (0,), group="one") for i in range(5)]
    clips += [Clip(f"b-{i}", (1,)) for i in range(10)]
    larger, smaller = stratify(clips, 0.3, 0, 2)
    assert sum(0 in clip.labels for clip in larger) == 5
    assert sum(1 in clip.labels for clip in smaller) == 3


@given(clips=_clips(), limit=st.integers(1, 45), seed=st.integers(0, 9))
@settings(deadline=None)
def test_thin_keeps_order_number_and_balance(clips: list[Clip], limit: int, seed: int) -> None:
    """Exactly the limit (or all), in the order given, the same for the same seed."""
    kept = thin(clips, limit, seed)
    assert len(kept) == min(limit, len(clips))
    assert list(kept) == [clip for clip in clips if clip in set(kept)]
    assert kept == thin(clips, limit, seed)


def test_thin_draws_evenly_from_the_classes() -> None:
    """A rare class is not thinned away beside a common one."""
    clips = [Clip(f"a-{i}", (0,)) for i in range(90)] + [Clip(f"b-{i}", (1,)) for i in range(10)]
    assert Counter(clip.labels[0] for clip in thin(clips, 10, 0)) == {0: 5, 1: 5}
    assert Counter(clip.labels[0] for clip in thin(clips, 40, 0)) == {0: 30, 1: 10}


def _folded() -> list[Clip]:
    return [
        Clip(f"{label}-{fold}-{i}", (label,), fold=fold, group=f"{label}-{fold}-{i}")
        for label in range(3)
        for fold in (1, 2, 3)
        for i in range(3)
    ]


def test_a_class_that_only_the_test_fold_has_is_refused() -> None:
    """Nothing can be learnt of it: it is named, with the fold."""
    clips = [c for c in _folded() if c.labels != (1,) or c.fold == 2]
    with pytest.raises(DataError, match="a class without a clip outside fold 2: b"):
        make_split(_CARD, clips, 2, 0.1, 0)
    clips = [c for c in clips if c.labels != (2,)]
    with pytest.raises(DataError, match="2 classes without a clip outside fold 2: b, c"):
        make_split(_CARD, clips, 2, 0.1, 0)


def test_a_fold_without_clips_is_refused() -> None:
    """There is nothing to test on."""
    with pytest.raises(DataError, match="no test clip in fold 3"):
        make_split(_CARD, [c for c in _folded() if c.fold != 3], 3, 0.1, 0)


def test_too_few_recordings_to_choose_by_are_refused() -> None:
    """With one recording per class nothing can be set aside for validation."""
    clips = [c for c in _folded() if c.fold == 1 or c.id.endswith("2-0")]
    with pytest.raises(DataError, match="too few recordings"):
        make_split(_CARD, clips, 1, 0.1, 0)


@given(seed=st.integers(0, 9), share=st.floats(0.05, 0.6), fold=st.integers(1, 3))
def test_make_split_takes_validation_from_training_only(seed: int, share: float, fold: int) -> None:
    """The test fold is whole whatever the share, and validation comes out of the other folds."""
    clips = _folded()
    split = make_split(_CARD, clips, fold, share, seed)
    assert split.test == tuple(c for c in clips if c.fold == fold)
    assert set(split.train) | set(split.validate) == {c for c in clips if c.fold != fold}


# --- ESC-50 and ESC-10 ------------------------------------------------------------------------


def _edited(root: Path, line: int, **changes: str) -> None:
    path = root / "meta" / "esc50.csv"
    rows = _rows(path)
    for column, value in changes.items():
        rows[line - 1][rows[0].index(column)] = value
    _save(path, rows)


def test_esc10_is_the_rows_marked_so_renumbered(tmp_path: Path) -> None:
    """Its ten classes are ESC-50's targets 0, 1, 10, 11, 12, 20, 21, 38, 40, 41, in that order."""
    root = miniatures.esc50(tmp_path)
    tens, all_ = miniatures.opened("esc10", root), miniatures.opened("esc50", root)
    assert len(tens.clips()) == 50 and len(all_.clips()) == 250
    targets = (0, 1, 10, 11, 12, 20, 21, 38, 40, 41)
    by_id = {clip.id: clip for clip in all_.clips()}
    for clip in tens.clips():
        assert by_id[clip.id].labels == (targets[clip.labels[0]],)
        assert clip.id.endswith(f"-{targets[clip.labels[0]]}")
        assert tens.card.classes[clip.labels[0]] == all_.card.classes[by_id[clip.id].labels[0]]


def test_esc_clips_cut_from_one_recording_are_one_group(tmp_path: Path) -> None:
    """Takes A and B of a source are never divided between training and validation."""
    data = miniatures.opened("esc10", miniatures.esc50(tmp_path, 4, esc10_only=True))
    for clip in data.clips():
        fold, source, _, _ = clip.id.split("-")
        assert (clip.fold, clip.group) == (int(fold), source)
    split = data.split(1, 0.2, 0)
    takes = Counter(clip.group for clip in split.validate)
    assert takes and set(takes.values()) == {2}


@pytest.mark.parametrize("suffix", [".flac", ".ogg"])
def test_esc_clips_may_lie_there_in_another_format(tmp_path: Path, suffix: str) -> None:
    """The list says wav; a flac or ogg of the same stem is the same clip, with the same id."""
    root = miniatures.esc50(tmp_path, esc10_only=True)
    before = miniatures.opened("esc10", root)
    for file in sorted((root / "audio").iterdir()):
        x, rate = soundfile.read(file)
        soundfile.write(file.with_suffix(suffix), x, rate)
        file.unlink()
    after = miniatures.opened("esc10", root)
    assert [c.id for c in after.clips()] == [c.id for c in before.clips()]
    assert {_file(c).suffix for c in after.clips()} == {suffix}
    assert after.check().ok


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fold": "6"}, "there is no fold 6; the folds are 1, 2, 3, 4, 5"),
        ({"fold": "one"}, "fold 'one' is not a whole number"),
        ({"target": "50"}, "target 50 is no class of ESC-50"),
        ({"target": "-1"}, "target -1 is no class of ESC-50"),
        ({"target": ""}, "target '' is not a whole number"),
        ({"category": "cat"}, "category 'cat' is not that of target 0, 'dog'"),
    ],
)
def test_esc_rows_that_contradict_the_data_set_are_named(
    tmp_path: Path, changes: dict[str, str], words: str
) -> None:
    """The file, the line, and what is wrong with it."""
    root = miniatures.esc50(tmp_path, esc10_only=True)
    _edited(root, 2, **changes)
    with pytest.raises(DataError, match=words) as caught:
        miniatures.opened("esc10", root)
    assert "esc50.csv, line 2" in str(caught.value)


def test_an_esc_clip_that_is_listed_twice_is_refused(tmp_path: Path) -> None:
    """Even with another suffix: ids are stems."""
    root = miniatures.esc50(tmp_path, esc10_only=True)
    first = _rows(root / "meta" / "esc50.csv")[1][0]
    _edited(root, 3, filename=Path(first).with_suffix(".ogg").name)
    with pytest.raises(DataError, match=r"line 3: .* is listed twice"):
        miniatures.opened("esc10", root)


def test_an_esc_class_without_clips_is_named(tmp_path: Path) -> None:
    """A list that lacks a class is no ESC-10."""
    root = miniatures.esc50(tmp_path, esc10_only=True)
    path = root / "meta" / "esc50.csv"
    _save(path, [row for row in _rows(path) if row[3] not in ("rain", "helicopter")])
    with pytest.raises(DataError, match="no clip of the 2 classes rain, helicopter"):
        miniatures.opened("esc10", root)


def test_esc50_of_a_copy_of_esc10_is_answered_with_its_name(tmp_path: Path) -> None:
    """Forty classes have no clip: the message says what this copy is."""
    root = miniatures.esc50(tmp_path, esc10_only=True)
    with pytest.raises(DataError, match=r"40 classes .*is the data set 'esc10'"):
        miniatures.opened("esc50", root)


def test_the_real_esc10(esc10_dir: Path) -> None:
    """400 clips, 40 per class, 80 per fold, whole sources within a fold; 20 are not 5 s long."""
    data = open_dataset(config.Dataset(name="esc10", data_dir=str(esc10_dir)))
    clips = data.clips()
    assert Counter(c.labels[0] for c in clips) == dict.fromkeys(range(10), 40)
    assert Counter(c.fold for c in clips) == dict.fromkeys(range(1, 6), 80)
    folds_of: dict[str, set[int | None]] = {}
    for clip in clips:
        folds_of.setdefault(clip.group, set()).add(clip.fold)
    assert all(len(folds) == 1 for folds in folds_of.values())
    report = data.check()
    assert report.ok
    assert any(note.startswith("20 clips are not 5 s long") for note in report.notes)
    split = data.split(1, 0.1, 0)
    assert len(split.test) == 80
    # A tenth of 320 clips, as near as whole recordings let it come.
    assert 28 <= len(split.validate) <= 36
    assert set(Counter(c.labels[0] for c in split.validate).values()) <= {2, 3, 4, 5}
    assert len(split.train) + len(split.validate) == 320


# --- SONYC-UST --------------------------------------------------------------------------------


def test_the_miniature_of_sust_has_its_78_columns(tmp_path: Path) -> None:
    """As the published list has them: 12 of the recording, 29 fine twice, 8 coarse."""
    header = _rows(miniatures.sust(tmp_path) / "annotations.csv")[0]
    assert len(header) == len(set(header)) == 78
    assert header[-8:] == [f"{i}_{n}_presence" for i, n in enumerate(card("sust").classes, 1)]


def test_sust_labels_follow_its_rules(tmp_path: Path) -> None:
    """Training: any volunteer; elsewhere: annotator 0; who has no such row is left out."""
    data = miniatures.opened("sust", miniatures.sust(tmp_path))
    classes = data.card.classes
    labels = {c.id + ".wav": {classes[x] for x in c.labels} for c in data.clips()}
    assert labels == {r.name: set(r.labels) for r in SUST if r.labels is not None}
    assert {c.id + ".wav": c.split for c in data.clips()} == {
        r.name: r.split for r in SUST if r.labels is not None
    }
    assert data.check(decode=False).notes == (
        "Recordings without a label, left out: 1 train, 1 validate, 1 test.",
    )


def test_sust_presences_that_pandas_wrote_mean_the_same(tmp_path: Path) -> None:
    """1.0, 0.0 and -1.0 are 1, 0 and -1."""
    root = miniatures.sust(tmp_path)
    before = miniatures.opened("sust", root).clips()
    rows = _rows(root / "annotations.csv")
    _save(
        root / "annotations.csv",
        [rows[0]] + [row[:-8] + [f"{float(word)}" for word in row[-8:]] for row in rows[1:]],
    )
    assert miniatures.opened("sust", root).clips() == before


def test_sust_a_not_asked_in_the_agreed_truth_is_absent(tmp_path: Path) -> None:
    """-1 never makes a label, in any annotator's row."""
    root = miniatures.sust(tmp_path)
    path = root / "annotations.csv"
    before = miniatures.opened("sust", root).clips()
    rows = _rows(path)
    _save(path, [[("-1" if w == "0" and i >= 70 else w) for i, w in enumerate(r)] for r in rows])
    assert miniatures.opened("sust", root).clips() == before


def test_sust_validation_is_whole_sensors_of_the_training_split(tmp_path: Path) -> None:
    """The published validate split is listed, but on no side."""
    data = miniatures.opened("sust", miniatures.sust(tmp_path))
    split = data.split(1, 0.2, 0)
    assert {c.split for c in split.train + split.validate} == {"train"}
    assert {c.split for c in split.test} == {"test"}
    assert {c.split for c in data.clips()} == {"train", "validate", "test"}
    sensors = [{c.id.split("_")[0] for c in side} for side in (split.train, split.validate)]
    assert sensors[0] and sensors[1] and not sensors[0] & sensors[1]


@pytest.mark.parametrize("audio", ["audio", "audio-0", "audio-18", "."])
def test_sust_sounds_may_lie_where_copies_have_them(tmp_path: Path, audio: str) -> None:
    """In one folder, in the folders the archives make, or beside the list."""
    data = miniatures.opened("sust", miniatures.sust(tmp_path, audio=audio))
    assert data.check().ok
    assert {_file(c).parent for c in data.clips()} == {(tmp_path / audio)}


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("split", "dev", "split 'dev' is none of train, validate, test"),
        ("annotator_id", "x", "annotator_id 'x' is not a whole number"),
        ("1_engine_presence", "2", "1_engine_presence is '2', not 1, 0 or -1"),
        ("8_dog_presence", "", "8_dog_presence is '', not 1, 0 or -1"),
    ],
)
def test_sust_rows_that_make_no_sense_are_named(
    tmp_path: Path, column: str, value: str, words: str
) -> None:
    """The file, the line, and what is wrong with it."""
    path = miniatures.sust(tmp_path) / "annotations.csv"
    rows = _rows(path)
    rows[1][rows[0].index(column)] = value
    _save(path, rows)
    with pytest.raises(DataError, match=f"annotations.csv, line 2: {words}"):
        miniatures.opened("sust", tmp_path)


def test_a_sust_recording_in_two_splits_is_refused(tmp_path: Path) -> None:
    """It would be trained and tested on."""
    path = miniatures.sust(tmp_path) / "annotations.csv"
    rows = _rows(path)
    rows[2][0] = "test"
    _save(path, rows)
    with pytest.raises(DataError, match=r"line 3: .* is in the splits 'train' and 'test'"):
        miniatures.opened("sust", tmp_path)


def test_sust_recordings_that_differ_only_in_their_suffix_are_refused(tmp_path: Path) -> None:
    """Their ids would be one."""
    twins = (*SUST, replace(SUST[0], name=SUST[0].name.replace(".wav", ".flac")))
    with pytest.raises(DataError, match="1 recordings that differ only in their suffix"):
        miniatures.opened("sust", miniatures.sust(tmp_path, twins))


def test_a_sust_class_that_nobody_hears_in_training_is_named(tmp_path: Path) -> None:
    """It cannot be learnt, and a split says so."""
    silent = [r for r in SUST if not (r.split == "train" and "dog" in (r.labels or ()))]
    data = miniatures.opened("sust", miniatures.sust(tmp_path, silent))
    with pytest.raises(DataError, match="a class without a clip in its training split: dog"):
        data.split(1, 0.1, 0)


def test_sust_without_a_label_at_all_is_refused(tmp_path: Path) -> None:
    """Project members alone make no label."""
    asked = [Recording("00_000001.wav", "train", 0, {-1: ("dog",)}, None)]
    with pytest.raises(DataError, match="lists no recording with a label"):
        miniatures.opened("sust", miniatures.sust(tmp_path, asked))


# --- a folder of one's own --------------------------------------------------------------------


def _meta(root: Path, text: str) -> Path:
    """A list, and a short sound wherever it names one."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "meta.csv").write_text(text, encoding="utf-8")
    for number, row in enumerate(csv.DictReader(text.splitlines())):
        file = root / row["filename"].strip()
        file.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(file, miniatures.sound([0], number), 8000, format="WAV")
    return root


def test_both_forms_of_a_folder_list_the_same_clips(tmp_path: Path) -> None:
    """By sub-folders or by a list with neither fold nor split: same ids, labels and split."""
    tree = miniatures.opened("folder", miniatures.folder_tree(tmp_path / "tree"))
    text = miniatures.opened("folder", miniatures.folder_csv(tmp_path / "list", by=""))
    assert tree.card.classes == text.card.classes == ("bark", "bell", "rain")
    bare = [[replace(c, path=None) for c in data.clips()] for data in (tree, text)]
    assert bare[0] == bare[1]
    assert bare[0][0].id == "bark/0.wav"


def test_a_folder_takes_its_name_and_number_from_itself(tmp_path: Path) -> None:
    """Its card is that of its clips: title, classes, count, folds, task."""
    c = miniatures.opened("folder", miniatures.folder_csv(tmp_path / "farm", multi=True)).card
    assert (c.title, c.n_clips, c.folds, c.task) == ("farm", 19, (1, 2, 3), Task.MULTI_LABEL)
    assert card("folder").classes == ()


def test_a_folder_with_neither_fold_nor_split_tests_on_a_fixed_fifth(tmp_path: Path) -> None:
    """A fifth of each class, the same whatever the seed."""
    data = miniatures.opened("folder", miniatures.folder_tree(tmp_path, clips_per_class=10))
    tests = {data.split(1, 0.1, seed).test for seed in range(5)}
    assert len(tests) == 1
    assert Counter(c.labels for c in tests.pop()) == {(0,): 2, (1,): 2, (2,): 2}


def test_a_named_validation_split_is_used_as_it_is(tmp_path: Path) -> None:
    """The owner's choice goes before the share; other words for the splits are understood."""
    text = "filename,label,split\n" + "".join(
        f"{label}{i}.wav,{label},{split}\n"
        for label in "ab"
        for i, split in enumerate(("train", "Train", "val", "dev", "validation", "test"))
    )
    split = miniatures.opened("folder", _meta(tmp_path, text)).split(1, 0.5, 0)
    assert [c.id for c in split.train] == ["a0.wav", "a1.wav", "b0.wav", "b1.wav"]
    assert [c.id[1] for c in split.validate] == list("234234")
    assert [c.id for c in split.test] == ["a5.wav", "b5.wav"]


def test_groups_of_a_folder_are_kept_together(tmp_path: Path) -> None:
    """With a column ``group``, neither the fifth that is tested nor validation cuts one."""
    text = "filename,label,group\n" + "".join(
        f"{label}{i}.wav,{label},{label}{i // 4}\n" for label in "ab" for i in range(40)
    )
    split = miniatures.opened("folder", _meta(tmp_path, text)).split(1, 0.2, 3)
    for side in _sides(split):
        assert set(Counter(c.group for c in side).values()) == {4}
    assert [len(side) for side in _sides(split)] == [48, 16, 16]


def test_labels_of_a_folder_may_be_several_or_none(tmp_path: Path) -> None:
    """Separated by semicolons, spaces around and repetitions ignored; then a row may have none."""
    text = (
        "filename,label\na.wav,dog\nb.wav, music ; dog;\nc.wav,\nd.wav,music;music\n"
        "e.wav,dog\nf.wav,music\n"
    )
    data = miniatures.opened("folder", _meta(tmp_path, text))
    assert data.card.task is Task.MULTI_LABEL and data.card.classes == ("dog", "music")
    assert [c.labels for c in data.clips()] == [(0,), (0, 1), (), (1,), (0,), (1,)]


def test_a_label_given_twice_does_not_make_a_folder_multi_label(tmp_path: Path) -> None:
    """``dog;dog`` is one label."""
    text = "filename,label\na.wav,dog;dog\nb.wav,cat\n"
    data = miniatures.opened("folder", _meta(tmp_path, text))
    assert data.card.task is Task.SINGLE_LABEL
    assert [c.labels for c in data.clips()] == [(1,), (0,)]


def test_sounds_of_a_folder_may_lie_in_audio(tmp_path: Path) -> None:
    """Names are relative to the folder, or to ``audio/`` in it; ids are the same."""
    root = miniatures.folder_csv(tmp_path)
    before = [c.id for c in miniatures.opened("folder", root).clips()]
    (root / "audio").mkdir()
    for name in ("bark", "bell", "rain"):
        shutil.move(root / name, root / "audio" / name)
    data = miniatures.opened("folder", root)
    assert [c.id for c in data.clips()] == before
    assert data.check().ok


def test_sub_folders_are_searched_and_hidden_or_other_files_are_not_sounds(tmp_path: Path) -> None:
    """Sounds at any depth count, whatever the case of their suffix; notes and pictures do not."""
    root = miniatures.folder_tree(tmp_path, clips_per_class=1)
    deep = root / "bark" / "2019" / "b.WAV"
    deep.parent.mkdir()
    shutil.copy(root / "bark" / "0.wav", deep)
    shutil.copy(root / "bark" / "0.wav", root / "bark" / "._0.wav")
    (root / "bark" / "notes.txt").write_text("loud")
    (root / ".cache").mkdir()
    data = miniatures.opened("folder", root)
    assert [c.id for c in data.clips()] == [
        "bark/0.wav",
        "bark/2019/b.WAV",
        "bell/0.wav",
        "rain/0.wav",
    ]
    assert data.card.classes == ("bark", "bell", "rain")
    shutil.copy(root / "bark" / "0.wav", root / "loose.wav")
    for name in ("a.m4a", "b.wma"):
        (root / "rain" / name).write_bytes(b"sound of a kind")
    assert miniatures.opened("folder", root).check(decode=False).notes == (
        "4 files are left out, in no class or in no format that is read: bark/notes.txt, "
        "rain/a.m4a, rain/b.wma, loose.wav.",
    )
    (root / "rain" / "0.wav").unlink()
    with pytest.raises(DataError, match=r"'rain' has no clip.* only rain/a.m4a, rain/b.wma"):
        miniatures.opened("folder", root)


def test_a_class_that_results_were_written_into_keeps_its_sounds(tmp_path: Path) -> None:
    """Explanations of versions without the mark are no class, but a class with explanations in it
    is one still, without what is marked there."""
    root = miniatures.folder_tree(tmp_path, clips_per_class=2)
    before = [clip.id for clip in miniatures.opened("folder", root).clips()]
    for above in ("bark", "explanations"):
        made = root / above / "0"
        made.mkdir(parents=True)
        (made / "explanation.json").write_text("{}")
        shutil.copy(root / "bell" / "0.wav", made / "explanation.wav")
    (root / "bark" / "0" / MARK).write_text("")
    data = miniatures.opened("folder", root)
    assert [clip.id for clip in data.clips()] == before
    assert data.check(decode=False).notes == (
        "The folder 'explanations' is no class: l2i wrote it.",
    )


def test_every_format_that_can_be_read_is(tmp_path: Path) -> None:
    """Whatever suffix libsndfile's formats go by: each file is a clip, and decodes."""
    root = miniatures.folder_tree(tmp_path, clips_per_class=1)
    words = "w64 W64 aifc AIFF snd AU voc VOC sph NIST nist NIST rf64 RF64 wave WAV bwf WAVEX"
    words += " avr AVR ircam IRCAM paf PAF pvf PVF iff SVX sds SDS"
    formats = dict(zip(words.split()[::2], words.split()[1::2], strict=True))
    for suffix, kind in formats.items():
        path = root / "bell" / f"1.{suffix}"
        soundfile.write(path, miniatures.sound([1], 5), 8000, format=kind, subtype="PCM_16")
    data = miniatures.opened("folder", root)
    assert len(data.clips()) == 3 + len(formats)
    report = data.check()
    # One sound in all these formats is one sound: it stands on both sides of the split.
    assert report.ok and len(report.notes) == 1 and "sound the same" in report.notes[0]


@pytest.mark.parametrize("word", [".", "..", "../x", "../x/.", "y/.."])
def test_a_folder_by_any_of_its_names(
    word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parent of '.' is '.', which is no reason to think that one has been there."""
    (tmp_path / "x" / "y").mkdir(parents=True)
    (tmp_path / "x" / "s.wav").touch()
    monkeypatch.chdir(tmp_path / "x")
    assert [file.name for file in sounds_in(Path(word))] == ["s.wav"]


def test_linked_folders_are_searched(tmp_path: Path) -> None:
    """Within a class, and a class itself; a link to where the search has been is named."""
    root = miniatures.folder_tree(tmp_path / "data", clips_per_class=2)
    (root / "bark").rename(tmp_path / "dogs")
    (root / "bark").symlink_to(tmp_path / "dogs")
    far = tmp_path / "far"
    far.mkdir()
    shutil.copy(root / "bell" / "0.wav", far / "x.wav")
    (root / "bell" / "more").symlink_to(far)
    for name, target in (("up", root), ("all", tmp_path), ("round", root / "bell")):
        (root / "bell" / name).symlink_to(target)
    data = miniatures.opened("folder", root)
    assert [c.id for c in data.clips()] == [
        *("bark/0.wav", "bark/1.wav", "bell/0.wav", "bell/1.wav", "bell/more/x.wav"),
        *("rain/0.wav", "rain/1.wav"),
    ]
    report = data.check()
    assert report.ok
    assert "3 files are left out" in report.notes[0]
    assert report.notes[0].endswith("bell/all, bell/round, bell/up.")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("filename,label\na.wav,dog\nb.wav,\n", "line 3: the label is empty"),
        ("filename,label\na.wav,dog\nb.wav,dog\n", "one class only, 'dog'"),
        ("filename,label\na.wav,dog\n./a.wav,cat\n", "line 3: .* is listed twice"),
        ("filename,label,fold\na.wav,dog,0\n", "line 2: fold '0' is not a whole number from 1"),
        ("filename,label,fold\na.wav,dog,x\n", "line 2: fold 'x' is not a whole number from 1"),
        ("filename,label,fold\na.wav,dog,2\nb.wav,cat,2\n", "one fold only"),
        ("filename,label,split\na.wav,dog,exam\n", "split 'exam' is none of train, validate"),
        ("filename,label,fold,split\na.wav,dog,1,train\n", "both a column 'fold' and"),
    ],
)
def test_lists_of_a_folder_that_make_no_sense_are_named(
    tmp_path: Path, text: str, words: str
) -> None:
    """What is wrong, and in which line."""
    with pytest.raises(DataError, match=words):
        miniatures.opened("folder", _meta(tmp_path, text))


def test_a_class_folder_without_sounds_is_named(tmp_path: Path) -> None:
    """A class without clips is no class one could learn."""
    root = miniatures.folder_tree(tmp_path)
    (root / "thunder").mkdir()
    with pytest.raises(DataError, match="The class 'thunder' has no clip"):
        miniatures.opened("folder", root)


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("meta.csv", "filename,label"),
        ("metadata.csv", "file_name,label"),
        ("metadata.csv", "file_name,category"),
    ],
)
def test_a_list_may_be_called_as_others_call_it(tmp_path: Path, name: str, header: str) -> None:
    """The names of Hugging Face's audiofolder and of ESC-50 say the same as ours."""
    root = miniatures.folder_csv(tmp_path, by="")
    _, *rows = (root / "meta.csv").read_text().splitlines()
    before = [(c.id, c.labels) for c in miniatures.opened("folder", root).clips()]
    (root / "meta.csv").unlink()
    (root / name).write_text("\n".join([header, *rows]))
    data = miniatures.opened("folder", root)
    assert [(c.id, c.labels) for c in data.clips()] == before and data.check().ok


def test_two_lists_or_columns_of_one_meaning_are_refused(tmp_path: Path) -> None:
    """Nobody guesses which of them counts."""
    root = _meta(tmp_path, "filename,label,category\na.wav,dog,dog\nb.wav,cat,cat\n")
    with pytest.raises(DataError, match="both a column 'label' and a column 'category'"):
        miniatures.opened("folder", root)
    shutil.copy(root / "meta.csv", root / "metadata.csv")
    with pytest.raises(DataError, match=r"both meta.csv and metadata.csv: keep one"):
        miniatures.opened("folder", root)


def test_folders_of_a_split_and_folders_around(tmp_path: Path) -> None:
    """A folder around all is passed through; those called as sides of a split are the split, and
    the class is the folder in them; what was done is said."""
    for side, n in (("train", 4), ("Validation", 1), ("test", 2)):
        miniatures.folder_tree(tmp_path / "unpacked" / "farm" / side, clips_per_class=n)
    data = miniatures.opened("folder", tmp_path)
    assert data.card.classes == ("bark", "bell", "rain")
    assert [len(side) for side in _sides(data.split(1, 0.1, 0))] == [12, 3, 6]
    assert data.clips()[0].id == "unpacked/farm/Validation/bark/0.wav"
    assert data.check(decode=False).notes == (
        "The folders Validation, test, train are the sides of the split; classes are the folders "
        "in them.",
    )
    for side in ("train", "Validation"):
        shutil.rmtree(tmp_path / "unpacked" / "farm" / side)
    data = miniatures.opened("folder", tmp_path)
    assert data.card.classes == ("bark", "bell", "rain") and len(data.clips()) == 6
    assert "Classes are the folders in unpacked/farm/test." in data.check(decode=False).notes


def test_folders_that_could_be_a_split_are_classes_too(tmp_path: Path) -> None:
    """A class may be called ``test``: it takes a ``train`` beside it and nothing else."""
    root = miniatures.folder_tree(tmp_path, clips_per_class=2)
    (root / "bark").rename(root / "test")
    assert miniatures.opened("folder", root).card.classes == ("bell", "rain", "test")


@pytest.mark.parametrize(
    "content", ["nothing", "sounds without folders", "one folder", "a folder and a sound"]
)
def test_folders_that_are_no_data_set_are_refused(tmp_path: Path, content: str) -> None:
    """The message says what was looked for."""
    if content == "sounds without folders":
        soundfile.write(tmp_path / "a.wav", miniatures.sound([0], 0), 8000)
    elif content != "nothing":
        (tmp_path / "bark").mkdir()
        soundfile.write(tmp_path / "bark" / "a.wav", miniatures.sound([0], 0), 8000)
    one = content in ("one folder", "a folder and a sound")
    words = "one class only, 'bark'" if one else "neither a meta.csv nor"
    if content == "a folder and a sound":
        soundfile.write(tmp_path / "stray.wav", miniatures.sound([0], 0), 8000)
        words += r".* beside it there is stray\.wav"
    with pytest.raises(DataError, match=words):
        miniatures.opened("folder", tmp_path)


def test_every_report_says_whether_all_is_well() -> None:
    """A note is no fault; a missing or an invalid clip is."""
    assert Report(3, notes=("odd",)).ok
    assert not Report(3, missing=("a.wav",)).ok
    assert not Report(3, invalid=(("a.wav", "NaN"),)).ok
