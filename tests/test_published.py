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

from l2i.data import DATASETS, card
from l2i.errors import DataError, UsageError
from l2i.models import published
from l2i.models.checkpoint import load_weights
from l2i.models.classifier import FrozenClassifier
from l2i.models.interpreter import Interpreter
from l2i.models.published import KNOWN, MAPS, SETTINGS, Known, fit, git_blob_id, read_published
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


def _problems(content: Any) -> str:
    with pytest.raises(DataError) as found:
        fit([read_published(_saved(content))])
    return str(found.value)


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
    assert networks.missing == ()

    network = VGG(C, head=HEAD)
    load_weights(network, networks.classifier, path)
    names = [str(i) for i in range(C)]
    classifier = FrozenClassifier(network, SETTINGS, names, Task.SINGLE_LABEL)
    interpreter = Interpreter(K, C, maps=MAPS, attention_width=WIDTH).eval().requires_grad_(False)
    load_weights(interpreter, networks.interpreter, path)
    for number, seconds in enumerate((1.6, 2.3)):
        waveform = originals.clip(seconds, number)
        want = model(waveform)
        features = classifier.features_of(
            classifier.spectrum(torch.from_numpy(waveform)[None]), MAPS
        )
        frames = SETTINGS.n_frames(len(waveform))
        said = interpreter(features.maps, frames)
        got = {
            "logits": features.logits,
            **{f"map {name}": y for name, y in zip(MAPS, features.maps, strict=True)},
            "activations": said.activations,
            "z": said.pooled,
            "interpreter logits": said.logits,
        }
        assert set(got) == set(want)
        for name, value in want.items():
            _close(got[name], value, name)
    assert networks.dictionary is not None
    _close(networks.dictionary, model.W.columns(), "dictionary")
    assert (model.W.W < 0).any() and (networks.dictionary >= 0).all()


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
        "classifier": {"f_state_dict": f},
        "dictionary": {"W_state_dict": small["W_state_dict"], "last_weights": ""},
        "parts of a model": {k: small[k] for k in ("H_state_dict", "h_state_dict")},
        "AudioSet weights": netx,
    }
    missing = {
        "classifier": ("dictionary", "interpreter"),
        "dictionary": ("classifier", "interpreter"),
        "parts of a model": ("classifier", "dictionary"),
        "AudioSet weights": ("classifier", "dictionary", "interpreter"),
    }
    for kind, content in kinds.items():
        file = read_published(_saved(content))
        assert file.kind == kind
        assert fit([file]).missing == missing.get(kind, ())
    for kind, content in (("classifier", f), ("AudioSet weights", netx)):
        for prefix in ("", "module."):
            file = read_published(_saved({prefix + k: v for k, v in content.items()}))
            assert file.kind == kind
            fit([file])
    with open("w.npy", "wb") as handle:
        np.save(handle, np.asfortranarray(small["W_state_dict"]["W"].numpy().astype(">f8")))
    file = read_published(Path("w.npy"))
    assert file.kind == "dictionary"
    w = fit([file]).dictionary
    assert w is not None and w.shape == (513, K) and w.dtype == torch.float32
    torch.testing.assert_close(w.norm(dim=0), torch.ones(K))


def test_half_an_interpreter_is_none(small: dict[str, Any]) -> None:
    """Without its head it is not one, and what is missing is the head."""
    file = read_published(_saved({k: v for k, v in small.items() if k != "h_state_dict"}))
    networks = fit([file])
    assert networks.interpreter == {} and networks.missing == ("interpreter's head",)


def test_parts_of_several_files(small: dict[str, Any]) -> None:
    """Files complete one another; a part that two of them hold is refused, with both names."""
    with open("w.npy", "wb") as handle:
        np.save(handle, small["W_state_dict"]["W"].numpy())
    rest = {k: v for k, v in small.items() if k != "W_state_dict"}
    files = [read_published(Path("w.npy")), read_published(originals.save(rest, Path("rest.pt")))]
    networks = fit(files)
    assert networks.missing == () and networks.origin["dictionary"] is files[0]
    whole = read_published(originals.save(small, Path("whole.pt")))
    with pytest.raises(UsageError, match=r"w\.npy and whole\.pt both hold the dictionary"):
        fit([files[0], whole])


# --- known files --------------------------------------------------------------------------------


def test_known_files(small: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is known by its bytes; one byte more and it is not."""
    path = _saved(small)
    blob = git_blob_id(path.read_bytes())
    assert read_published(path).git_blob == blob and read_published(path).known is None
    known = Known("mine", "file.pt", "nowhere")
    monkeypatch.setattr(published, "KNOWN", {blob: known})
    assert read_published(path).known is known
    np.save("w.npy", np.ones((513, 2)))
    assert read_published(Path("w.npy")).known is None


def test_the_table_of_known_files() -> None:
    """Eight of them, of data sets and folds that are there; and git's own id of the empty file."""
    assert git_blob_id(b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    assert len(KNOWN) == 8
    for blob, known in KNOWN.items():
        assert re.fullmatch(r"[0-9a-f]{40}", blob)
        if known.dataset:
            assert known.dataset in DATASETS
            assert known.fold is None or known.fold in card(known.dataset).folds
    for name, thresholds in published.THRESHOLDS.items():
        assert len(thresholds) == len(card(name).classes)


# --- misfits ------------------------------------------------------------------------------------


def test_all_misfits_are_named_at_once(small: dict[str, Any]) -> None:
    """What is missing, unexpected, of another shape, not a tensor or not of floating point, with
    what was expected; what most tensors say of K is what the others are held to."""
    content = _copy(small)
    del content["f_state_dict"]["netx.layer8.1.running_mean"]
    content["f_state_dict"]["netx.layer20.0.weight"] = torch.zeros(2)
    content["f_state_dict"]["layer.0.bias"] = torch.zeros(HEAD, dtype=torch.int64)
    content["H_state_dict"]["conv5.weight"] = torch.zeros(K, K + 1, 5)
    content["H_state_dict"]["conv8.bias"] = [0.0] * 128
    content["h_state_dict"]["fc1.weight"] = torch.zeros(C + 1, K)
    content["W_state_dict"]["W"] = torch.ones(K, 513)
    lines = _problems(content).splitlines()
    assert lines[0] == "file.pt does not fit the published networks:"
    assert sorted(line.removeprefix("  - ") for line in lines[1:]) == sorted(
        [
            "classifier: netx.layer8.1.running_mean is missing; [64] is expected",
            "classifier: netx.layer20.0.weight is unexpected",
            "classifier: layer.0.bias is not a plain tensor of floating-point numbers",
            f"interpreter: conv5.weight has the shape [{K}, {K + 1}, 5]; "
            f"[K={K}, K={K}, 5] is expected",
            "interpreter: conv8.bias is not a plain tensor of floating-point numbers",
            f"head: fc1.weight has the shape [{C + 1}, {K}]; [C={C}, K={K}] is expected",
            f"dictionary: W has the shape [{K}, 513]; [513, K={K}] is expected",
        ]
    )


def test_a_dictionary_of_another_k(small: dict[str, Any]) -> None:
    """Of two files the one that disagrees is named."""
    np.save("w.npy", np.ones((513, K + 4)))
    rest = {k: v for k, v in small.items() if k != "W_state_dict"}
    files = [read_published(Path("w.npy")), read_published(_saved(rest))]
    with pytest.raises(DataError) as found:
        fit(files)
    assert str(found.value).splitlines() == [
        "w.npy and file.pt do not fit the published networks:",
        f"  - w.npy: dictionary: W has the shape [513, {K + 4}]; [513, K={K}] is expected",
    ]


def test_another_network_altogether(small: dict[str, Any]) -> None:
    """One line, not a hundred; and a long list is cut."""
    content = _copy(small)
    content["f_state_dict"] = {"resnet.conv.weight": torch.zeros(3), "resnet.bias": torch.zeros(1)}
    found = _problems(content)
    assert "classifier: none of its 76 tensors is there; there is resnet.conv.weight" in found
    assert len(found.splitlines()) == 2
    content["f_state_dict"] = dict.fromkeys(map(str, range(90)), torch.zeros(1))
    content["f_state_dict"]["fc.bias"] = torch.zeros(C)
    found = _problems(content)
    assert len(found.splitlines()) == 42 and found.endswith("and 125 more")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("f_state_dict", "netx.layer5.1.running_var"),
        ("H_state_dict", "conv4.bias"),
        ("h_state_dict", "fc1.weight"),
        ("W_state_dict", "W"),
    ],
)
def test_what_is_not_finite_is_refused(
    small: dict[str, Any], part: str, name: str, value: float
) -> None:
    """One such number anywhere, and its tensor is named."""
    content = _copy(small)
    tensor = content[part][name].clone()
    tensor.view(-1)[-1] = value
    content[part][name] = tensor
    found = _problems(content)
    assert f"{name} holds values that are not finite" in found
    assert len(found.splitlines()) == 2


def test_numbers_that_cannot_be(small: dict[str, Any]) -> None:
    """A variance below zero would be NaN in use; a dictionary without a positive value is none;
    a number that float32 has not is infinite; a tensor without values has no size."""
    content = _copy(small)
    content["f_state_dict"]["netx.layer2.1.running_var"] = torch.full((16,), -1.0)
    content["f_state_dict"]["fc.bias"] = torch.full((C,), 1e300, dtype=torch.float64)
    content["W_state_dict"]["W"] = torch.full((513, K), -1.0)
    found = _problems(content)
    assert "netx.layer2.1.running_var is a variance, and below zero" in found
    assert "fc.bias holds values that are not finite" in found
    assert "W has no value above zero" in found
    assert "the shape [513, 0]" in _problems({"W_state_dict": {"W": torch.zeros(513, 0)}})


def test_strides_cannot_claim_memory() -> None:
    """Two terabytes that the file has not are not allocated."""
    found = _problems({"W_state_dict": {"W": torch.ones(1).expand(513, 10**9)}})
    assert "W is not a plain tensor" in found


def test_names_are_fit_for_a_terminal(small: dict[str, Any]) -> None:
    """A stranger's names cannot move the cursor or fill the screen."""
    content = _copy(small)
    content["h_state_dict"]["\x1b[2J" + "x" * 500] = torch.zeros(1)
    found = _problems(content)
    assert "\x1b" not in found and "?[2Jxxx" in found and len(found) < 200


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
    path = _saved(content, legacy)
    with pytest.raises(DataError, match=r"file\.pt holds more than tensors and notes") as found:
        read_published(path)
    assert not Path("harm").exists()
    assert "\n" not in str(found.value)


def test_nothing_is_run_in_other_forms() -> None:
    """A bare pickle, by the newest protocol or the oldest, and numpy's own pickles."""
    for protocol in (0, 2, pickle.HIGHEST_PROTOCOL):
        Path("file.pkl").write_bytes(pickle.dumps({"a": Touch()}, protocol))
        with pytest.raises(DataError, match=r"file\.pkl"):
            read_published(Path("file.pkl"))
    np.save("w.npy", np.array([Touch()], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"w\.npy holds more than numbers"):
        read_published(Path("w.npy"))
    assert not Path("harm").exists()


@pytest.mark.parametrize(
    "function", [np.fromfile, np.load, getattr, eval, torch.hub.load, np.random.default_rng]
)
def test_only_arrays_of_numpy_are_let_in(small: dict[str, Any], function: Any) -> None:
    """Of numpy, too, nothing but the making of arrays; and of Python nothing."""

    class Calls:
        def __reduce__(self) -> Any:
            return function, ("x",)

    path = _saved({**small, "train_info": Calls()})
    with pytest.raises(DataError, match="holds more than tensors and notes"):
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
        with pytest.raises(DataError, match=r"file\.pt (is neither|is not|holds|does)"):
            fit([read_published(path)])
    np.save("w.npy", np.ones((513, K)))
    whole = Path("w.npy").read_bytes()
    for cut in (8, 60, 5000, len(whole) - 1):
        Path("w.npy").write_bytes(whole[:cut])
        with pytest.raises(DataError, match=r"w\.npy is not a numpy array, or is damaged"):
            read_published(Path("w.npy"))


def test_what_is_not_such_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Text, a folder, nothing at all, a pointer of git's, other content, other numbers."""
    path = Path("file.pt")
    for text in ("hello", "<html>404</html>", "PK\x03\x04" + "x" * 100):
        path.write_text(text)
        with pytest.raises(DataError, match=r"is neither a file that torch\.save wrote"):
            read_published(path)
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(DataError, match="only a pointer"):
        read_published(path)
    with pytest.raises(DataError, match="There is no file absent"):
        read_published(Path("absent"))
    with pytest.raises(DataError, match="cannot be read"):
        read_published(tmp_path)
    for content, message in (
        ([torch.zeros(1)], "holds no dict of tensors"),
        ({"weight": torch.zeros(1)}, "holds weight, and is none of the published files"),
        ({"f_state_dict": torch.zeros(1)}, "f_state_dict is no dict of named tensors"),
        ({"f_state_dict": {1: torch.zeros(1)}}, "f_state_dict is no dict of named tensors"),
        ({}, "holds nothing"),
    ):
        with pytest.raises(DataError, match=message):
            read_published(_saved(content))
    np.save("w.npy", np.ones((513, K), dtype=int))
    with pytest.raises(DataError, match="numbers of type int64"):
        read_published(Path("w.npy"))
    monkeypatch.setattr(published, "MAX_BYTES", 1000)
    with pytest.raises(DataError, match="larger than any published file"):
        read_published(Path("w.npy"))
