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
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from l2i.dsp.spectrogram import SpectrogramSettings
from l2i.errors import DataError, UsageError
from l2i.models.dictionary import unit_columns
from l2i.models.vgg import VGG

__all__ = [
    "KNOWN",
    "MAPS",
    "SETTINGS",
    "THRESHOLDS",
    "Found",
    "Known",
    "Published",
    "fit",
    "git_blob_id",
    "read_published",
]

SETTINGS = SpectrogramSettings(44100, n_fft=1024, hop_length=512, n_mels=128)
"""What all published networks were made under."""

MAPS = ("512", "256", "128")
"""The hidden maps their interpreter reads."""

THRESHOLDS = {"sust": (0.6, 0.6, 0.5, 0.6, 0.5, 0.6, 0.6, 0.6)}
"""Data set -> from which probability on its published classifier says that a class is there."""

MAX_BYTES = 2**30
"""Larger files are not read; the largest published one has some 60 MB."""


@dataclass(frozen=True, slots=True)
class Known:
    """A published file.

    Attributes
    ----------
    title, file, where : str
    dataset : str
        Its data set's name here; empty: it is for any.
    fold : int or None
        The fold it was not trained on.
    """

    title: str
    file: str
    where: str
    dataset: str = ""
    fold: int | None = None


_L2I = "github.com/jayneelparekh/L2I-code"
_KUMAR = "github.com/anuragkr90/weak_feature_extractor"

# By git blob id, which stands in for the checksums that nobody published.
KNOWN: Mapping[str, Known] = {
    "18f7764281ba48a5f0d5eff8dfd3792f44911839": Known(
        "AudioSet weights of the trunk", "mx-h64-1024_0d3-1.17.pkl", _KUMAR
    ),
    "dddd28006252d3ef75403c6d5c7aee1a8a194844": Known(
        "ESC-50 fold 1, classifier", "output/esc50_output/classifier_fold1.pt", _L2I, "esc50", 1
    ),
    "ade60f16d24a2657b888262c256c4ee426feed46": Known(
        "ESC-50 fold 1, whole model", "output/esc50_output/try10_AttExpv2.pt", _L2I, "esc50", 1
    ),
    "806a86d4be84b5d2e76e93c6498f13e48fc63c9a": Known(
        "SONYC-UST, classifier", "output/sust_output/classifier_full_FT.pt", _L2I, "sust"
    ),
    "fb6108aa1c9aedcb283bdf7f22b75e2c5d95ae7f": Known(
        "SONYC-UST, whole model", "output/sust_output/try14_AttExp_v2.pt", _L2I, "sust"
    ),
    "7a6e1de97c30e69bc77f809b65014b9d069ca346": Known(
        "ESC-50 fold 1, dictionary",
        "output/esc50_output/initW_LMS_K100_sp0.8_Fold1_n1.npy",
        _L2I,
        "esc50",
        1,
    ),
    "0927d9ab1812d307d0f1fc7e08fbdc7e585b2621": Known(
        "ESC-50 fold 3, dictionary",
        "output/esc50_output/initW_LMS_K100_sp0.8_Fold3_n1.npy",
        _L2I,
        "esc50",
        3,
    ),
    "ff5bd003b99e549fef02ef2d5ccc215aabf3c4e7": Known(
        "SONYC-UST, dictionary",
        "output/sust_output/initW_LMS_SingleK10_sp0.8_NS1000_n6.npy",
        _L2I,
        "sust",
    ),
}


def git_blob_id(data: bytes) -> str:
    """What git calls these bytes: the SHA-1 of ``"blob <size>\\0"`` and the bytes.

    >>> git_blob_id(b"hello\\n")
    'ce013625030ba8dba906f756967f9e9ca394464a'
    """
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


# --- reading ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """What a file holds, as it stands there.

    Attributes
    ----------
    path : Path
    kind : str
        One of the kinds of the module's docstring; of a dict with some of a whole model's parts,
        the one part, or ``parts of a model``.
    parts : mapping
        ``classifier``, ``interpreter``, ``head``, ``dictionary``, ``trunk`` (AudioSet weights):
        those that are there, each from name to what should be a tensor.
    size : int
        Bytes.
    git_blob, sha256 : str
    """

    path: Path
    kind: str
    parts: Mapping[str, Mapping[str, Any]] = field(repr=False)
    size: int
    git_blob: str
    sha256: str

    @property
    def known(self) -> Known | None:
        """The published file that this is, byte for byte; None: another one."""
        return KNOWN.get(self.git_blob)


_PARTS = {
    "f_state_dict": "classifier",
    "H_state_dict": "interpreter",
    "h_state_dict": "head",
    "W_state_dict": "dictionary",
}


def read_published(path: Path) -> Found:
    """Read one file, without running anything that it holds.

    Parameters
    ----------
    path : Path
        Its content decides what it is, not its name.

    Raises
    ------
    DataError
        It is absent, damaged, none of the published forms, or needs more than tensors.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path} is larger than any published file and was not read.")
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"There is no file {path}.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None
    if data.startswith(b"version https://git-lfs"):
        raise DataError(f"{path} is only a pointer to the file; 'git lfs pull' fetches the file.")
    parts: dict[str, dict[str, Any]]
    if data.startswith(b"\x93NUMPY"):
        kind, parts = "dictionary", {"dictionary": {"W": _read_numpy(path, data)}}
    else:
        kind, parts = _sort(path, _read_torch(path, data))
    sha256 = hashlib.sha256(data).hexdigest()
    return Found(path, kind, parts, len(data), git_blob_id(data), sha256)


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
# How torch words a refusal of what is whole but not tensors.
_NEEDS_MORE = re.compile(r"GLOBAL (\S+)|Can only (?:create|build)|Trying to call reduce")


def _read_torch(path: Path, data: bytes) -> Any:
    allowed = torch.serialization.safe_globals([(_Dropped, name) for name in _NUMPY])
    try:
        with allowed, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever the bytes make it raise.
        if more := _NEEDS_MORE.search(str(error)):
            what = f" ({more[1]})" if more[1] else ""
            raise DataError(
                f"{path} holds more than tensors and notes{what}: to read it would be to run "
                "code of its author's, and it is refused."
            ) from None
        raise DataError(
            f"{path} is neither a file that torch.save wrote nor a numpy array, or is damaged; "
            "fetch it again."
        ) from None


def _read_numpy(path: Path, data: bytes) -> Tensor:
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # Likewise.
        if "allow_pickle" in str(error):
            raise DataError(
                f"{path} holds more than numbers: to read it would be to run code of its "
                "author's, and it is refused."
            ) from None
        raise DataError(f"{path} is not a numpy array, or is damaged; fetch it again.") from None
    if array.dtype.kind != "f":
        raise DataError(f"{path} holds numbers of type {array.dtype}, not floating-point ones.")
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def _sort(path: Path, content: Any) -> tuple[str, dict[str, dict[str, Any]]]:
    """What kind of file has this content, and its parts."""
    if not isinstance(content, Mapping):
        raise DataError(f"{path} holds no dict of tensors, and is none of the published files.")
    parts = {
        part: _plain(path, key, content[key]) for key, part in _PARTS.items() if key in content
    }
    if parts:
        kind = next(iter(parts)) if len(parts) == 1 else "parts of a model"
        return ("whole model" if len(parts) == len(_PARTS) else kind), parts
    state = _plain(path, "the file", content)
    if any(name.startswith("netx.") for name in state):
        return "classifier", {"classifier": state}
    if any(re.match(r"layer\d+\.", name) for name in state):
        return "AudioSet weights", {"trunk": state}
    raise DataError(
        f"{path} holds {_some(_shown(name) for name in state)}, and is none of the published "
        f"files: whole models have {', '.join(_PARTS)}."
    )


def _plain(path: Path, key: str, state: Any) -> dict[str, Any]:
    """A state dict without the prefix that parallel training leaves."""
    if not isinstance(state, Mapping) or not all(isinstance(name, str) for name in state):
        raise DataError(f"{path}: {key} is no dict of named tensors.")
    if state and all(name.startswith("module.") for name in state):
        return {name.removeprefix("module."): value for name, value in state.items()}
    return dict(state)


def _shown(name: str) -> str:
    """A name from a stranger's file, fit for a terminal."""
    text = "".join(c if c.isprintable() else "?" for c in name)
    return text if len(text) <= 60 else text[:59] + "…"


def _some(words: Iterable[str], most: int = 6) -> str:
    every = list(words)
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return (", ".join(every[:most]) + more) or "nothing"


# --- fitting ------------------------------------------------------------------------------------

_Shape = tuple[int | str, ...]
# What the letters of a shape stand for.
_LETTERS = {"K": "components", "C": "classes", "head": "head", "width": "attention_width"}


@lru_cache(maxsize=1)
def _expected() -> dict[str, dict[str, _Shape]]:
    """Every tensor of every part, by name; letters stand for sizes that differ between files."""
    with torch.device("meta"):
        trunk: dict[str, _Shape] = {
            name: tuple(value.shape)
            for name, value in VGG(1, head=1).netx.state_dict().items()
            if not name.endswith("num_batches_tracked")
        }
    convolutions: dict[str, _Shape] = {
        "conv1": (256, 256, 3, 3),
        "conv2": (256, 512, 3, 3),
        "conv4": ("K", 256, 5),
        "conv5": ("K", "K", 5),
        "conv6": (256, 256, 4, 1),
        "conv7": (128, 512, 3, 3),
        "conv8": (128, 128, 4, 1),
    }
    interpreter: dict[str, _Shape] = {}
    for name, shape in convolutions.items():
        interpreter |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return {
        "classifier": {f"netx.{name}": shape for name, shape in trunk.items()}
        | {
            "layer.0.weight": ("head", 1024, 1, 1),
            "layer.0.bias": ("head",),
            "fc.weight": ("C", "head"),
            "fc.bias": ("C",),
        },
        "interpreter": interpreter,
        "head": {
            "attention_V.0.weight": ("width", "K"),
            "attention_V.0.bias": ("width",),
            "attention_U.0.weight": ("width", "K"),
            "attention_U.0.bias": ("width",),
            "attention_weights.weight": (1, "width"),
            "attention_weights.bias": (1,),
            "fc1.weight": ("C", "K"),
        },
        "dictionary": {"W": (SETTINGS.n_bins, "K")},
        "trunk": trunk,
    }


# Read past: the classes of AudioSet, and a counter that torch has had since 0.4.1.
_UNUSED = re.compile(r"(netx\.)?(layer19\.0\.(weight|bias)|layer\d+\.1\.num_batches_tracked)")
_MOST = 40


@dataclass(frozen=True)
class Published:
    """Parts that fit one another, under our names.

    Attributes
    ----------
    classifier : dict of str to Tensor
        Of `VGG`; empty where no file has it, as are the others.
    interpreter : dict of str to Tensor
        Of `Interpreter`, head included.
    dictionary : Tensor [F, K] or None
        Non-negative, with columns of unit length.
    sizes : mapping of str to int
        ``components`` (K), ``classes`` (C), ``head``, ``attention_width``: those that are known.
    missing : tuple of str
        What is not there of what an explanation needs.
    origin : mapping of str to Found
        The file that each of ``classifier``, ``interpreter``, ``head``, ``dictionary``,
        ``trunk`` is from.
    """

    classifier: dict[str, Tensor]
    interpreter: dict[str, Tensor]
    dictionary: Tensor | None
    sizes: Mapping[str, int]
    missing: tuple[str, ...]
    origin: Mapping[str, Found]


def fit(files: Sequence[Found]) -> Published:
    """Check every tensor of some files, and put the parts together.

    Parameters
    ----------
    files : sequence of Found
        No part may be in two of them.

    Raises
    ------
    UsageError
        Two files hold the same part.
    DataError
        Tensors are missing, unexpected, of another shape, not plain numbers or not finite; all
        of them are named.
    """
    origin: dict[str, Found] = {}
    parts: dict[str, Mapping[str, Any]] = {}
    for file in files:
        for part, tensors in file.parts.items():
            if part in parts:
                raise UsageError(
                    f"{origin[part].path} and {file.path} both hold the {_WORDS[part]}: give one "
                    "of them."
                )
            origin[part], parts[part] = file, tensors
    sizes = _sizes(parts)
    problems: list[str] = []
    fitting: dict[str, dict[str, Tensor]] = {}
    for part, tensors in parts.items():
        fitting[part], found = _check(part, tensors, sizes)
        several = len(files) > 1
        problems += [f"{origin[part].path.name}: {line}" if several else line for line in found]
    if problems:
        names = " and ".join(str(file.path) for file in files)
        more = [f"and {len(problems) - _MOST} more"] if len(problems) > _MOST else []
        raise DataError(
            f"{names} {'does' if len(files) == 1 else 'do'} not fit the published networks:"
            + "".join(f"\n  - {line}" for line in problems[:_MOST] + more)
        )

    classifier = fitting.get("classifier", {})
    if classifier:
        with torch.device("meta"):
            own = VGG(1, head=1).state_dict()
        # In evaluation the counter is not read, but the network wants it.
        classifier |= {k: torch.zeros((), dtype=torch.long) for k in own if k not in classifier}
    interpreter: dict[str, Tensor] = {}
    if "interpreter" in fitting and "head" in fitting:
        interpreter = fitting["interpreter"] | {
            f"pool.{name}" if name.startswith("attention_") else name: value
            for name, value in fitting["head"].items()
        }
    dictionary = fitting["dictionary"]["W"] if "dictionary" in fitting else None
    return Published(
        classifier,
        interpreter,
        None if dictionary is None else unit_columns(dictionary.clamp_min(0)),
        {_LETTERS[letter]: size for letter, size in sizes.items()},
        tuple(_WORDS[part] for part in _needed(parts) if part not in parts),
        origin,
    )


_WORDS = {
    "classifier": "classifier",
    "dictionary": "dictionary",
    "interpreter": "interpreter",
    "head": "interpreter's head",
    "trunk": "trunk's AudioSet weights",
}


def _needed(parts: Mapping[str, object]) -> tuple[str, ...]:
    """What an explanation needs; an interpreter's head is named only where there is one half."""
    halves = ("interpreter", "head") if {"interpreter", "head"} & set(parts) else ("interpreter",)
    return ("classifier", "dictionary", *halves)


def _sizes(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """Letter to size: what most tensors say, so that of those that disagree the few are named."""
    votes: dict[str, Counter[int]] = {}
    for part, tensors in parts.items():
        for name, shape in _expected()[part].items():
            value = tensors.get(name)
            if not isinstance(value, Tensor) or value.ndim != len(shape):
                continue
            for letter, size in zip(shape, value.shape, strict=True):
                if isinstance(letter, str):
                    votes.setdefault(letter, Counter())[size] += 1
    return {letter: counts.most_common(1)[0][0] for letter, counts in votes.items()}


def _check(
    part: str, tensors: Mapping[str, Any], sizes: Mapping[str, int]
) -> tuple[dict[str, Tensor], list[str]]:
    """The part's tensors as float32, and one line for each that does not fit."""
    expected = _expected()[part]

    def want(name: str) -> str:
        words = [
            f"{x}={sizes.get(x, '?')}" if isinstance(x, str) else str(x) for x in expected[name]
        ]
        return f"[{', '.join(words)}] is expected"

    if not any(name in tensors for name in expected):
        there = _some((_shown(name) for name in tensors), 4)
        return {}, [f"{part}: none of its {len(expected)} tensors is there; there is {there}"]
    fitting: dict[str, Tensor] = {}
    problems = []
    for name, shape in expected.items():
        if name not in tensors:
            problems.append(f"{part}: {name} is missing; {want(name)}")
            continue
        value = tensors[name]
        if not _is_plain(value):
            problems.append(f"{part}: {name} is not a plain tensor of floating-point numbers")
            continue
        wanted = tuple(sizes.get(x, -1) if isinstance(x, str) else x for x in shape)
        if tuple(value.shape) != wanted or 0 in wanted:
            problems.append(f"{part}: {name} has the shape {list(value.shape)}; {want(name)}")
            continue
        fitting[name] = value.detach().float().contiguous()
        if not fitting[name].isfinite().all():
            problems.append(f"{part}: {name} holds values that are not finite")
        elif name.endswith("running_var") and (fitting[name] < 0).any():
            problems.append(f"{part}: {name} is a variance, and below zero")
        elif part == "dictionary" and not (fitting[name] > 0).any():
            problems.append(f"{part}: {name} has no value above zero")
    unexpected = [n for n in tensors if n not in expected and not _is_unused(part, n)]
    problems += [f"{part}: {_shown(name)} is unexpected" for name in unexpected]
    return fitting, problems


def _is_plain(value: Any) -> bool:
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and value.is_floating_point()
        # Strides may claim more values than the file has bytes.
        and 4 * value.numel() <= MAX_BYTES
    )


def _is_unused(part: str, name: str) -> bool:
    return part in ("classifier", "trunk") and _UNUSED.fullmatch(name) is not None
