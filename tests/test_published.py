"""`l2i.models.published`: others' files compute here what they compute there, and cannot bite."""

from __future__ import annotations

import os
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from l2i.data import card
from l2i.errors import CheckpointError, UsageError
from l2i.models import published
from l2i.models.checkpoint import load_weights
from l2i.models.classifier import FrozenClassifier
from l2i.models.interpreter import Interpreter
from l2i.models.published import KNOWN, MAPS, SETTINGS, fit, git_blob_id, read_published
from l2i.models.vgg import VGG
from l2i.types import Task
from tests import originals

C, K, HEAD, WIDTH = 3, 6, 12, 5
each_form = pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])


@pytest.fixture(scope="module")
def model() -> originals.Model:
    return originals.Model(C, components=K, head=HEAD, width=WIDTH)


@pytest.fixture(scope="module")
def small(model: originals.Model) -> dict[str, Any]:
    """A whole model's content in a few kilobytes; a test changes a copy of its own."""
    return originals.hollow(model.content())


def _copy(content: dict[str, Any]) -> dict[str, Any]:
    return {k: dict(v) if isinstance(v, dict) else v for k, v in content.items()}


def _saved(content: Any, legacy: bool = False) -> Path:
    return originals.save(content, Path("file.pt"), legacy)


def _problem(content: Any, legacy: bool = False) -> str:
    with pytest.raises(CheckpointError) as caught:
        fit([read_published(_saved(content, legacy))])
    assert "\n" not in str(caught.value) and str(caught.value).startswith("file.pt")
    return str(caught.value)


def _close(got: Tensor, want: Tensor, what: str) -> None:
    """To 1e-4 of the greatest value."""
    assert got.shape == want.shape, what
    assert want.abs().max() > 0.01 and want.std() > 0, f"{what}: says nothing"
    assert (got - want).abs().max() <= 1e-4 * want.abs().max(), what


# --- the same networks --------------------------------------------------------------------------


@each_form
def test_networks_compute_what_the_originals_compute(model: originals.Model, legacy: bool) -> None:
    """Logits, hidden maps, activations, z and the interpreter's logits, from the waveform on, for
    clips of two lengths; and the dictionary."""
    path = _saved(model.content(), legacy)
    file = read_published(path)
    assert file.kind == "whole model" and file.known is None
    networks = fit([file])
    assert networks.sizes == {"components": K, "classes": C, "head": HEAD, "attention_width": WIDTH}
    network = VGG(C, head=HEAD)
    load_weights(network, networks.tensors["classifier"], path)
    names = [str(i) for i in range(C)]
    classifier = FrozenClassifier(network, SETTINGS, names, Task.SINGLE_LABEL)
    interpreter = Interpreter(K, C, maps=MAPS, attention_width=WIDTH).eval().requires_grad_(False)
    load_weights(interpreter, networks.tensors["interpreter"], path)
    for number, seconds in enumerate((1.6, 2.3)):
        waveform = originals.clip(seconds, number)
        want = model(waveform)
        features = classifier.features_of(
            classifier.spectrum(torch.from_numpy(waveform)[None]), MAPS
        )
        frames = SETTINGS.n_frames(len(waveform))
        heard = interpreter(features.maps, frames)
        got = {
            "logits": features.logits,
            **{f"map {name}": y for name, y in zip(MAPS, features.maps, strict=True)},
            "activations": heard.activations,
            "z": heard.pooled,
            "interpreter logits": heard.logits,
        }
        assert set(got) == set(want)
        for name, value in want.items():
            _close(got[name], value, name)
    w = networks.tensors["dictionary"]["W"]
    _close(w, model.W.columns(), "dictionary")
    assert (model.W.W < 0).any() and (w >= 0).all()


def test_files_of_torch_0_3(model: originals.Model) -> None:
    """Before torch 0.4 a tensor was rebuilt by another function and batch norms had no counter."""

    class Old(pickle.Pickler):
        def reducer_override(self, value: Any) -> Any:
            if type(value) is not Tensor:
                return NotImplemented
            place = (value.storage_offset(), tuple(value.shape), value.stride())
            return torch._utils._rebuild_tensor, (value._typed_storage(), *place)

    class Module:
        Pickler, dump, HIGHEST_PROTOCOL = Old, staticmethod(pickle.dump), 2

    state = {
        f"module.{name}": value
        for name, value in model.f.netx.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    torch.save(state, "old.pkl", pickle_module=Module, _use_new_zipfile_serialization=False)
    assert b"_rebuild_tensor\n" in Path("old.pkl").read_bytes(), "not of the old form"
    file = read_published(Path("old.pkl"))
    assert file.kind == "AudioSet weights"
    for name, value in file.parts["trunk"].items():
        assert torch.equal(value, state[f"module.{name}"])
    fit([file])


# --- kinds --------------------------------------------------------------------------------------


def test_every_kind_is_told_by_its_content(small: dict[str, Any]) -> None:
    """Whatever the file is called; with or without the prefix that parallel training leaves."""
    f = small["f_state_dict"]
    netx = {k.removeprefix("netx."): v for k, v in f.items() if k.startswith("netx.")}
    kinds = {
        "whole model": small,
        "parts of a model": {k: v for k, v in small.items() if k != "f_state_dict"},
        "classifier": {"f_state_dict": f},
        "dictionary": {"W_state_dict": small["W_state_dict"], "last_weights": ""},
        "interpreter": {k: small[k] for k in ("H_state_dict", "h_state_dict")},
        "AudioSet weights": netx,
    }
    for kind, content in kinds.items():
        file = read_published(_saved(content))
        assert file.kind == kind
        fit([file])
    for kind, content in (("classifier", f), ("AudioSet weights", netx)):
        file = read_published(_saved({"module." + k: v for k, v in content.items()}))
        assert file.kind == kind
        fit([file])
    with open("w.npy", "wb") as handle:
        np.save(handle, np.asfortranarray(small["W_state_dict"]["W"].numpy().astype(">f8")))
    file = read_published(Path("w.npy"))
    assert file.kind == "dictionary"
    w = fit([file]).tensors["dictionary"]["W"]
    assert w.shape == (513, K) and w.dtype == torch.float32
    torch.testing.assert_close(w.norm(dim=0), torch.ones(K))


def test_parts_of_several_files(small: dict[str, Any]) -> None:
    """Files complete one another; a part that two of them hold is refused, with both names; and
    where their sizes differ, the one that does not fit."""
    with open("w.npy", "wb") as handle:
        np.save(handle, small["W_state_dict"]["W"].numpy())
    rest = {k: v for k, v in small.items() if k != "W_state_dict"}
    files = [read_published(Path("w.npy")), read_published(originals.save(rest, Path("rest.pt")))]
    networks = fit(files)
    assert set(networks.tensors) == {"classifier", "interpreter", "dictionary"}
    assert networks.origin["dictionary"] is files[0]
    whole = read_published(originals.save(small, Path("whole.pt")))
    with pytest.raises(UsageError, match=r"w\.npy and whole\.pt both hold the dictionary"):
        fit([files[0], whole])
    np.save("w.npy", np.ones((513, K + 4)))
    with pytest.raises(CheckpointError, match=rf"w\.npy .*W \(513, {K + 4}\) for \(513, {K}\)"):
        fit([read_published(Path("w.npy")), files[1]])


@pytest.mark.parametrize("prefix", ["", "module."])
def test_audioset_weights_are_the_trunks(model: originals.Model, prefix: str) -> None:
    """Every weight of the trunk is taken, with or without counters of batches; AudioSet's classes
    in ``layer19`` are left out."""
    state = model.f.netx.state_dict()
    assert "layer19.0.weight" in state
    trunk = fit([read_published(_saved({prefix + k: v for k, v in state.items()}))])
    network = VGG(C, head=HEAD)
    load_weights(network.netx, trunk.tensors["trunk"], Path("file.pt"))
    taken = {k: v for k, v in network.netx.state_dict().items() if v.ndim}
    assert "layer18.1.running_var" in taken
    assert all(torch.equal(value, state[name]) for name, value in taken.items())


# --- known files --------------------------------------------------------------------------------


def test_known_files(small: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is known by its bytes; one byte more and it is not."""
    path = _saved(small)
    blob = git_blob_id(path.read_bytes())
    assert read_published(path).git_blob == blob and read_published(path).known is None
    monkeypatch.setattr(published, "KNOWN", {blob: "mine"})
    assert read_published(path).known == "mine"
    path.write_bytes(path.read_bytes() + b"\0")
    assert read_published(path).known is None


def test_the_tables() -> None:
    """Eight known files; git's own id of the empty file; a threshold for each class."""
    assert git_blob_id(b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    assert len(KNOWN) == 8 and all(re.fullmatch(r"[0-9a-f]{40}", blob) for blob in KNOWN)
    for name, thresholds in published.THRESHOLDS.items():
        assert len(thresholds) == len(card(name).classes)


# --- misfits ------------------------------------------------------------------------------------


f, H, h, W = "f_state_dict", "H_state_dict", "h_state_dict", "W_state_dict"


@pytest.mark.parametrize(
    ("part", "name", "value", "words"),
    [
        (f, "netx.layer8.1.running_mean", None, "missing: netx.layer8.1.running_mean"),
        (f, "fc.weight", None, "missing: fc.weight"),
        (f, "netx.layer20.0.weight", torch.ones(2), "unknown: netx.layer20.0.weight"),
        (H, "conv5.weight", torch.ones(K, 7, 5), f"of another shape: conv5.weight ({K}, 7, 5) for"),
        (h, "fc1.weight", torch.ones(C + 1, K), f"fc1.weight ({C + 1}, {K}) for ({C}, {K})"),
        (h, "attention_U.0.bias", None, "missing: pool.attention_U.0.bias"),
        (W, "W", torch.ones(K, 513), f"W ({K}, 513) for (513, {K})"),
        (W, "W", torch.ones(513, 0), "W is no tensor of finite"),
        # Two terabytes that the file has not are not allocated.
        (W, "W", torch.ones(1).expand(513, 10**9), "W is no tensor of finite"),
        (f, "layer.0.bias", torch.zeros(HEAD, dtype=torch.int64), "layer.0.bias is no tensor"),
        (H, "conv8.bias", [0.0] * 128, "conv8.bias is no tensor of finite"),
        (h, "fc1.weight", torch.full((C, K), torch.nan), "fc1.weight is no tensor of finite"),
        # A number that float32 has not is infinite.
        (f, "fc.bias", torch.full((C,), 1e300, dtype=torch.float64), "fc.bias is no tensor"),
        # A stranger's names cannot move the cursor or fill the screen.
        (h, "\x1b[2J", torch.zeros(1), "h_state_dict is no dict of named tensors"),
        (h, "x" * 500, torch.zeros(1), "h_state_dict is no dict of named tensors"),
    ],
)
def test_misfits_are_named(
    small: dict[str, Any], part: str, name: str, value: Any, words: str
) -> None:
    """Missing, unknown, of another shape, no tensor or not finite: one sentence with the name."""
    content = _copy(small)
    content[part].pop(name, None)
    if value is not None:
        content[part][name] = value
    problem = _problem(content)
    assert words in problem and len(problem) < 400


# --- what cannot be read, and what must not be ----------------------------------------------------


class Touch:
    """Unpickled by a reader that is not careful, it makes a file."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("harm",)


def test_touch_does_harm_where_it_can() -> None:
    """Else the tests below would prove nothing."""
    pickle.loads(pickle.dumps(Touch()))
    assert Path("harm").exists()


@each_form
@pytest.mark.parametrize("where", ["all", "part", "tensor", "name", "note"])
def test_nothing_in_a_file_is_run(small: dict[str, Any], legacy: bool, where: str) -> None:
    """Wherever in the file the code is, it is not run; the file is refused, with its name."""
    content: Any = _copy(small)
    if where == "all":
        content = Touch()
    elif where == "part":
        content["f_state_dict"] = Touch()
    elif where == "tensor":
        content["h_state_dict"]["fc1.weight"] = Touch()
    elif where == "name":
        content["f_state_dict"][Touch()] = torch.zeros(1)
    else:
        content["train_info"] = np.array([Touch()], dtype=object)
    assert "holds more than tensors and notes" in _problem(content, legacy)
    assert not Path("harm").exists()


def test_nothing_is_run_in_other_forms() -> None:
    """A bare pickle, by the newest protocol or the oldest, and numpy's own pickles."""
    for protocol in (0, 2, pickle.HIGHEST_PROTOCOL):
        Path("file.pkl").write_bytes(pickle.dumps({"a": Touch()}, protocol))
        with pytest.raises(CheckpointError, match=r"file\.pkl"):
            read_published(Path("file.pkl"))
    np.save("w.npy", np.array([Touch()], dtype=object), allow_pickle=True)
    with pytest.raises(CheckpointError, match=r"w\.npy holds more than tensors"):
        read_published(Path("w.npy"))
    assert not Path("harm").exists()


@pytest.mark.parametrize(
    "function", [np.fromfile, np.load, getattr, eval, torch.hub.load, np.random.default_rng]
)
def test_only_arrays_of_numpy_are_let_in(small: dict[str, Any], function: Any) -> None:
    """Nothing of numpy but the making of arrays, and nothing of Python."""

    class Calls:
        def __reduce__(self) -> Any:
            return function, ("x",)

    path = _saved({**small, "train_info": Calls()})
    with pytest.raises(CheckpointError, match="holds more than tensors and notes"):
        read_published(path)


def test_not_even_numpy_reads_the_notes(small: dict[str, Any]) -> None:
    """A data type that numpy would stumble over is let by: what makes arrays is a stand-in."""

    class Nonsense:
        def __reduce__(self) -> Any:
            return np.dtype, ("nonsense",), (3, "|", None, None, None, -1, -1, 63)

    with pytest.raises(TypeError):
        np.dtype("nonsense")
    before = set(torch.serialization.get_safe_globals())
    fit([read_published(_saved({**small, "train_info": Nonsense()}))])
    after = set(torch.serialization.get_safe_globals())
    assert after == before, "left open for the next reader"


@each_form
def test_truncated_files(model: originals.Model, legacy: bool) -> None:
    """Cut anywhere, a file is refused with a sentence."""
    path = _saved({"f_state_dict": {"fc.weight": torch.rand(50, 50)}, "n": np.ones(3)}, legacy)
    data = path.read_bytes()
    for share in (0.0, 0.001, 0.01, 0.1, 0.5, 0.9, 0.999):
        path.write_bytes(data[: int(share * len(data))])
        with pytest.raises(CheckpointError, match=r"file\.pt (is neither|holds|does)"):
            fit([read_published(path)])
    np.save("w.npy", np.ones((513, K)))
    whole = Path("w.npy").read_bytes()
    for cut in (8, 60, 5000, len(whole) - 1):
        Path("w.npy").write_bytes(whole[:cut])
        with pytest.raises(CheckpointError, match=r"w\.npy is neither .*, or is damaged"):
            read_published(Path("w.npy"))


def test_what_is_not_such_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Text, a folder, nothing at all, a pointer of git's, other content, other numbers."""
    path = Path("file.pt")
    for text in ("hello", "<html>404</html>", "PK\x03\x04" + "x" * 100):
        path.write_text(text)
        with pytest.raises(CheckpointError, match=r"is neither a file that torch\.save wrote"):
            read_published(path)
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(CheckpointError, match="only a pointer"):
        read_published(path)
    with pytest.raises(CheckpointError, match="There is no file absent"):
        read_published(Path("absent"))
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_published(tmp_path)
    for content, message in (
        ([torch.zeros(1)], "is none of the published files"),
        ({"weight": torch.zeros(1)}, "is none of the published files"),
        ({"f_state_dict": torch.zeros(1)}, "f_state_dict is no dict of named tensors"),
        ({"f_state_dict": {1: torch.zeros(1)}}, "f_state_dict is no dict of named tensors"),
        ({}, "is none of the published files"),
    ):
        with pytest.raises(CheckpointError, match=message):
            read_published(_saved(content))
    np.save("w.npy", np.ones((513, K), dtype=int))
    with pytest.raises(CheckpointError, match="W is no tensor of finite"):
        read_published(Path("w.npy"))
    monkeypatch.setattr(published, "MAX_BYTES", 1000)
    with pytest.raises(CheckpointError, match="larger than any published file"):
        read_published(Path("w.npy"))
