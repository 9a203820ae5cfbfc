"""The files that the method's authors publish: read without running them, checked, renamed.

==================  ================================================================
kind                what is inside
==================  ================================================================
whole model         a dict that torch saved: ``f_state_dict`` (classifier),
                    ``H_state_dict`` (interpreter), ``h_state_dict`` (its head),
                    ``W_state_dict`` (dictionary), and notes, which are not read
classifier          the same with ``f_state_dict`` alone, or a bare state dict
dictionary          a numpy array [513, K], or a dict with ``W_state_dict`` alone
AudioSet weights    the state dict of the trunk: ``module.layer1.0.weight`` ...
==================  ================================================================

They are pickles by strangers, so nothing in them is called: torch's own reader takes tensors and
containers, and refuses the rest. The one thing more that whole models hold, numpy arrays among
their notes, is let in by name and replaced by a stand-in that drops what it is given; not even
numpy's own reconstruction runs, which trusts the flags of a data type that the file describes.

The networks compute what the originals compute (``tests/test_published.py``), with these
translations: the dictionary is rectified and its columns are brought to unit length, as the
original does at each use; ``attention_*`` lie below ``pool``; ``netx.layer19``, the AudioSet
classes, is left out, since the head takes its place.

Over 300 lines: a table of the names in other people's files, and their checks.
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from l2i.dsp.spectrogram import SpectrogramSettings
from l2i.errors import CheckpointError, UsageError
from l2i.models.checkpoint import check_weights
from l2i.models.dictionary import unit_columns
from l2i.models.interpreter import Interpreter
from l2i.models.vgg import VGG

SETTINGS = SpectrogramSettings(44100, n_fft=1024, hop_length=512, n_mels=128)
"""What all published networks were made under."""

MAPS = ("512", "256", "128")
"""The hidden maps their interpreter reads."""

THRESHOLDS = {"sust": (0.6, 0.6, 0.5, 0.6, 0.5, 0.6, 0.6, 0.6)}
"""Data set -> from which probability on its published classifier says that a class is there."""

MAX_BYTES = 2**30
"""Larger files are not read; the largest published one has some 60 MB."""

_L2I = "of github.com/jayneelparekh/L2I-code"

KNOWN = {
    "18f7764281ba48a5f0d5eff8dfd3792f44911839": "AudioSet weights of the trunk "
    "(mx-h64-1024_0d3-1.17.pkl of github.com/anuragkr90/weak_feature_extractor)",
    "dddd28006252d3ef75403c6d5c7aee1a8a194844": "ESC-50 fold 1, classifier "
    f"(output/esc50_output/classifier_fold1.pt {_L2I})",
    "ade60f16d24a2657b888262c256c4ee426feed46": "ESC-50 fold 1, whole model "
    f"(output/esc50_output/try10_AttExpv2.pt {_L2I})",
    "806a86d4be84b5d2e76e93c6498f13e48fc63c9a": "SONYC-UST, classifier "
    f"(output/sust_output/classifier_full_FT.pt {_L2I})",
    "fb6108aa1c9aedcb283bdf7f22b75e2c5d95ae7f": "SONYC-UST, whole model "
    f"(output/sust_output/try14_AttExp_v2.pt {_L2I})",
    "7a6e1de97c30e69bc77f809b65014b9d069ca346": "ESC-50 fold 1, dictionary "
    f"(output/esc50_output/initW_LMS_K100_sp0.8_Fold1_n1.npy {_L2I})",
    "0927d9ab1812d307d0f1fc7e08fbdc7e585b2621": "ESC-50 fold 3, dictionary "
    f"(output/esc50_output/initW_LMS_K100_sp0.8_Fold3_n1.npy {_L2I})",
    "ff5bd003b99e549fef02ef2d5ccc215aabf3c4e7": "SONYC-UST, dictionary "
    f"(output/sust_output/initW_LMS_SingleK10_sp0.8_NS1000_n6.npy {_L2I})",
}
"""Git blob id, which stands in for the checksums that nobody published -> the file's contents."""

_PARTS = {
    "f_state_dict": "classifier",
    "H_state_dict": "interpreter",
    "h_state_dict": "interpreter",
    "W_state_dict": "dictionary",
}
# Read past: the classes of AudioSet, and a counter that torch has had since 0.4.1.
_UNUSED = re.compile(r"(netx\.)?layer19\.0\.(weight|bias)|.*\.num_batches_tracked")


def git_blob_id(data: bytes) -> str:
    """What git calls these bytes: the SHA-1 of ``"blob <size>\\0"`` and the bytes.

    >>> git_blob_id(b"hello\\n")
    'ce013625030ba8dba906f756967f9e9ca394464a'
    """
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


# --- reading ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PublishedFile:
    """What a file holds.

    Attributes
    ----------
    path : Path
    kind : str
        One of the kinds of the module's docstring; of a dict with some of a whole model's parts,
        the one part, or ``parts of a model``.
    parts : mapping
        ``classifier``, ``interpreter`` (its head included), ``dictionary``, ``trunk`` (AudioSet
        weights): those that are there, each from our names to tensors, float32 and finite.
    size : int
        Bytes.
    git_blob, sha256 : str
    """

    path: Path
    kind: str
    parts: Mapping[str, Mapping[str, Tensor]] = field(repr=False)
    size: int
    git_blob: str
    sha256: str

    @property
    def known(self) -> str | None:
        """The published file that this is, byte for byte; None: another one."""
        return KNOWN.get(self.git_blob)


def read_published(path: Path) -> PublishedFile:
    """Read one file, without running anything that it holds.

    Parameters
    ----------
    path : Path
        Its content decides what it is, not its name.

    Raises
    ------
    CheckpointError
        It is absent, damaged, none of the published forms, needs more than tensors, or holds
        values that are not finite.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise CheckpointError(f"{path} is larger than any published file and was not read.")
        data = path.read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"There is no file {path}.") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from None
    if data.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"{path} is only a pointer to the file; 'git lfs pull' fetches the file."
        )
    kind, parts = _sort(path, _unpickle(path, data))
    sha256 = hashlib.sha256(data).hexdigest()
    return PublishedFile(path, kind, parts, len(data), git_blob_id(data), sha256)


class _Dropped:
    """Stands in for whatever numpy would make of a note."""

    def __new__(cls, *_: object) -> _Dropped:
        return object.__new__(cls)

    def __init__(self, *_: object) -> None:
        """Nothing is kept."""

    def __setstate__(self, _: object) -> None:
        """Nothing is kept."""


_NUMPY = [
    *(f"numpy.{core}.multiarray._reconstruct" for core in ("core", "_core")),
    *(f"numpy.{core}.multiarray.scalar" for core in ("core", "_core")),
    "numpy.ndarray",
    "numpy.dtype",
]
# How torch and numpy word a refusal of what is whole but needs code.
_NEEDS_MORE = re.compile(
    r"GLOBAL (\S+)|Can only (?:create|build)|Trying to call reduce|allow_pickle"
)


def _unpickle(path: Path, data: bytes) -> Any:
    """The content of a file that torch or numpy saved."""
    allowed = torch.serialization.safe_globals([(_Dropped, name) for name in _NUMPY])
    try:
        if data.startswith(b"\x93NUMPY"):
            array = np.load(io.BytesIO(data), allow_pickle=False)
            w = torch.from_numpy(array.astype(array.dtype.newbyteorder("=")))
            return {"W_state_dict": {"W": w}}
        with allowed, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # Both raise whatever the bytes make them raise.
        if more := _NEEDS_MORE.search(str(error)):
            what = f" ({more[1]})" if more[1] else ""
            raise CheckpointError(
                f"{path} holds more than tensors and notes{what}: to read it would be to run "
                "code of its author's, and it is refused."
            ) from None
        raise CheckpointError(
            f"{path} is neither a file that torch.save wrote nor a numpy array, or is damaged; "
            "fetch it again."
        ) from None


def _sort(path: Path, content: Any) -> tuple[str, dict[str, dict[str, Tensor]]]:
    """What kind of file has this content, and its parts."""
    if isinstance(content, Mapping):
        parts: dict[str, dict[str, Tensor]] = {}
        for key, part in _PARTS.items():
            if key in content:
                parts.setdefault(part, {}).update(_tensors(path, key, content[key]))
        if parts:
            kinds = {1: next(iter(parts)), 2: "parts of a model", 3: "whole model"}
            return kinds[len(parts)], parts
        state = _tensors(path, "the file", content)
        if any(name.startswith("netx.") for name in state):
            return "classifier", {"classifier": state}
        if any(re.match(r"layer\d+\.", name) for name in state):
            return "AudioSet weights", {"trunk": state}
    raise CheckpointError(
        f"{path} is none of the published files: whole models have {', '.join(_PARTS)}."
    )


def _tensors(path: Path, key: str, state: Any) -> dict[str, Tensor]:
    """A state dict's tensors under our names, as float32."""
    if not isinstance(state, Mapping) or not all(
        # A stranger's names may come to stand in a message.
        isinstance(name, str) and name.isprintable() and len(name) < 80
        for name in state
    ):
        raise CheckpointError(f"{path}: {key} is no dict of named tensors.")
    tensors = {}
    for name, value in state.items():
        # Parallel training leaves the first; the second has moved.
        ours = re.sub("^attention_", "pool.attention_", name.removeprefix("module."))
        if _UNUSED.fullmatch(ours):
            continue
        if not _is_sound(value):
            raise CheckpointError(
                f"{path}: {key}: {name} is no tensor of finite floating-point numbers."
            )
        tensors[ours] = value.detach().float().contiguous()
    return tensors


def _is_sound(value: Any) -> bool:
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and value.is_floating_point()
        # Strides may claim more values than the file has bytes.
        and 0 < 4 * value.numel() <= MAX_BYTES
        and bool(value.float().isfinite().all())
    )


# --- fitting ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Networks:
    """Parts that fit one another.

    Attributes
    ----------
    tensors : mapping of str to dict of str to Tensor
        ``classifier`` (of `VGG`), ``interpreter`` (of `Interpreter`), ``dictionary`` (``W`` [F, K],
        non-negative, with columns of unit length), ``trunk`` (of `VGG.netx`): those that are there.
    sizes : mapping of str to int
        ``components`` (K), ``classes`` (C), ``head``, ``attention_width``: those that are known.
    origin : mapping of str to PublishedFile
        The file that each of `tensors` is from.
    """

    tensors: Mapping[str, dict[str, Tensor]]
    sizes: Mapping[str, int]
    origin: Mapping[str, PublishedFile]


def fit(files: Sequence[PublishedFile]) -> Networks:
    """Check every tensor of some files, and put the parts together.

    Parameters
    ----------
    files : sequence of PublishedFile
        No part may be in two of them.

    Raises
    ------
    UsageError
        Two files hold the same part.
    CheckpointError
        Tensors are missing, left over or of another shape.
    """
    origin: dict[str, PublishedFile] = {}
    for file in files:
        for part in file.parts:
            if part in origin:
                raise UsageError(
                    f"{origin[part].path} and {file.path} both hold the {part}: give one of them."
                )
            origin[part] = file
    parts = {part: dict(file.parts[part]) for part, file in origin.items()}
    sizes: dict[str, int] = {}
    # The first that is there gives a size, and the checker names the others that disagree.
    for size, part, name, axis in (
        ("components", "interpreter", "conv5.weight", 0),
        ("components", "dictionary", "W", 1),
        ("classes", "classifier", "fc.weight", 0),
        ("classes", "interpreter", "fc1.weight", 0),
        ("head", "classifier", "fc.weight", 1),
        ("attention_width", "interpreter", "pool.attention_V.0.weight", 0),
    ):
        tensor = parts.get(part, {}).get(name)
        if tensor is not None and tensor.ndim > axis:
            sizes.setdefault(size, tensor.shape[axis])
    n, k = sizes.get("classes", 1), sizes.get("components", 1)
    with torch.device("meta"):
        network = VGG(n, head=sizes.get("head", 1))
        psi = Interpreter(k, n, maps=MAPS, attention_width=sizes.get("attention_width", 1))
        w = nn.ParameterDict({"W": torch.empty(SETTINGS.n_bins, k)})
    modules = {"classifier": network, "trunk": network.netx, "interpreter": psi, "dictionary": w}
    for part, tensors in parts.items():
        counters = [k for k in modules[part].state_dict() if k.endswith("num_batches_tracked")]
        parts[part] = {**tensors, **{k: torch.zeros((), dtype=torch.long) for k in counters}}
        check_weights(modules[part], parts[part], origin[part].path)
    if "dictionary" in parts:
        parts["dictionary"] = {"W": unit_columns(parts["dictionary"]["W"].clamp_min(0))}
    return Networks(parts, sizes, origin)
