"""`l2i.models.checkpoint`: what is saved comes back; what does not fit is refused, and says why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from l2i.dsp.spectrogram import SpectrogramSettings
from l2i.errors import CheckpointError
from l2i.models.checkpoint import (
    FORMAT,
    load_checkpoint,
    load_weights,
    read_settings,
    save_checkpoint,
)

SETTINGS = SpectrogramSettings(16000, 512, 128, 128)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The path of a dictionary's checkpoint."""
    file = tmp_path / "made" / "dictionary.safetensors"
    save_checkpoint(file, "dictionary", {"W": torch.eye(3)}, {"note": "übung"}, SETTINGS)
    return file


def test_tensors_and_metadata_come_back(tmp_path: Path) -> None:
    """Values, shapes, kinds of number, nested metadata and settings survive; so do tensors that
    are not contiguous or still want gradients."""
    tensors = {
        "float": torch.randn(3, 4, generator=torch.Generator().manual_seed(0)),
        "turned": torch.arange(6.0).view(2, 3).T,
        "whole": torch.tensor([1, -2], dtype=torch.int64),
        "yes": torch.tensor([True, False]),
        "single": torch.tensor(7.0),
        "learning": nn.Parameter(torch.ones(2)),
    }
    metadata = {"history": [{"loss": 0.1}], "classes": ["a", "ß"], "thresholds": None}
    file = tmp_path / "state.safetensors"
    save_checkpoint(file, "state", tensors, metadata, SETTINGS)
    got, document = load_checkpoint(file, "state")
    assert got.keys() == tensors.keys()
    for name, value in tensors.items():
        assert got[name].dtype == value.dtype
        assert got[name].equal(value.detach())
    assert {key: document[key] for key in metadata} == metadata
    assert (document["format"], document["kind"]) == (FORMAT, "state")
    assert read_settings(file, document, SETTINGS) == SETTINGS


def test_a_file_is_written_over_whole(path: Path) -> None:
    """A second save replaces the first, and leaves no other file."""
    save_checkpoint(path, "dictionary", {"W": torch.zeros(2)}, {}, SETTINGS)
    assert load_checkpoint(path, "dictionary")[0]["W"].tolist() == [0.0, 0.0]
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_an_absent_file_is_said_to_be_absent(tmp_path: Path) -> None:
    """With its kind and its path."""
    with pytest.raises(CheckpointError, match=r"There is no interpreter checkpoint .*x\.safe"):
        load_checkpoint(tmp_path / "x.safetensors", "interpreter")


@pytest.mark.parametrize("damage", ["cut", "empty", "noise", "a byte too few", "a folder's worth"])
def test_a_damaged_file_is_refused(path: Path, damage: str) -> None:
    """Cut short, empty or something else altogether: a CheckpointError that names the file."""
    whole = path.read_bytes()
    path.write_bytes(
        {
            "cut": whole[: len(whole) // 2],
            "empty": b"",
            "noise": bytes(range(256)) * 8,
            "a byte too few": whole[:-1],
            "a folder's worth": b"PK\x03\x04" + whole,
        }[damage]
    )
    with pytest.raises(CheckpointError, match=r"dictionary\.safetensors is not a checkpoint"):
        load_checkpoint(path, "dictionary")


@pytest.mark.parametrize(
    "header",
    [
        None,
        {},
        {"other": "{}"},
        {"l2i": "no json"},
        {"l2i": "[]"},
        {"l2i": "{}"},
        {"l2i": '{"format": "one", "kind": "dictionary"}'},
    ],
)
def test_a_safetensors_file_of_others_is_refused(tmp_path: Path, header: dict | None) -> None:
    """Whatever its header holds, a file that we did not write is not taken for ours."""
    file = tmp_path / "theirs.safetensors"
    save_file({"W": torch.eye(2)}, file, header)
    with pytest.raises(CheckpointError, match="is not a checkpoint of l2i, or is damaged"):
        load_checkpoint(file, "dictionary")


def test_another_kind_is_refused(path: Path) -> None:
    """The message says what it holds and what is wanted."""
    with pytest.raises(CheckpointError, match="holds a dictionary, where a classifier is wanted"):
        load_checkpoint(path, "classifier")


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    """A file of a later version says so instead of being misread."""
    file = tmp_path / "new.safetensors"
    document = json.dumps({"format": FORMAT + 1, "kind": "dictionary"})
    save_file({"W": torch.eye(2)}, file, {"l2i": document})
    with pytest.raises(CheckpointError, match=rf"newer l2i \(format {FORMAT + 1}\); update l2i"):
        load_checkpoint(file, "dictionary")


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (SpectrogramSettings(44100, 512, 128, 128), "sample_rate 16000 against 44100"),
        (SpectrogramSettings(16000, 1024, 128, 128), "n_fft 512 against 1024"),
        (SpectrogramSettings(16000, 512, 256, 192), "hop_length 128 against 256, n_mels 128"),
    ],
)
def test_other_settings_are_refused(path: Path, other: SpectrogramSettings, words: str) -> None:
    """A dictionary learnt at another sample rate or transform is refused with what differs."""
    _, document = load_checkpoint(path, "dictionary")
    assert read_settings(path, document) == SETTINGS
    with pytest.raises(CheckpointError, match=words):
        read_settings(path, document, other)


@pytest.mark.parametrize("metadata", [{}, {"spectrogram": {"hop": 3}}, {"spectrogram": None}])
def test_a_checkpoint_without_settings_is_refused(path: Path, metadata: dict) -> None:
    """Where they are missing or not understood, nothing is assumed."""
    with pytest.raises(CheckpointError, match="does not say what spectrogram"):
        read_settings(path, metadata)


def test_weights_must_fit_exactly(path: Path) -> None:
    """All that fits is loaded; a weight missing, unknown or of another shape is named, and the
    network stays as it was."""
    module = nn.Linear(2, 3)
    load_weights(module, {"weight": torch.ones(3, 2), "bias": torch.ones(3)}, path)
    assert module.weight.min() == 1
    wrong = {"weight": torch.zeros(2, 2), "extra": torch.zeros(1)}
    with pytest.raises(CheckpointError) as caught:
        load_weights(module, wrong, path)
    for words in ("missing: bias", "unknown: extra", "weight (2, 2) for (3, 2)", str(path)):
        assert words in str(caught.value)
    assert module.weight.min() == 1
