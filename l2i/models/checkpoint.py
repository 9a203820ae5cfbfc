"""Weights with the settings they were made under, in one file, without pickled code.

A checkpoint is a safetensors file whose header holds one JSON document: the format's version,
the kind (``classifier``, ``dictionary``, ``interpreter``, ``state``) and the metadata, among
them the spectrogram's settings. Loading runs no code, and a file made under other settings is
refused with what differs. Writes are atomic: a file is whole or absent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from l2i.dsp.spectrogram import Domain, SpectrogramSettings
from l2i.errors import CheckpointError
from l2i.storage import atomic_write_bytes

FORMAT = 1

_Settings = TypeVar("_Settings", bound=Domain)


def save_checkpoint(
    path: Path,
    kind: str,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, Any],
    settings: Domain | None = None,
) -> None:
    """Write a checkpoint, atomically; see `encode_checkpoint`.

    Parameters
    ----------
    path : Path
        Ends in ``.safetensors``.
    kind, tensors, metadata, settings
    """
    atomic_write_bytes(path, encode_checkpoint(kind, tensors, metadata, settings))


def encode_checkpoint(
    kind: str,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, Any],
    settings: Domain | None = None,
) -> bytes:
    """What `save_checkpoint` writes.

    Parameters
    ----------
    kind : str
    tensors : mapping of str to Tensor
    metadata : mapping
        Anything JSON can hold.
    settings : Domain or SpectrogramSettings, optional
        What the weights were made under.
    """
    document: dict[str, Any] = {"format": FORMAT, "kind": kind, **metadata}
    if settings is not None:
        document["spectrogram"] = asdict(settings)
    data = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    return save(data, {"l2i": json.dumps(document)})


def load_checkpoint(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a checkpoint.

    Raises
    ------
    CheckpointError
        If the file is absent, damaged, of another kind or of a newer format.
    """
    if not path.is_file():
        raise CheckpointError(f"There is no {kind} checkpoint {path}.")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        document = json.loads(header["l2i"])
        version, held = int(document["format"]), document["kind"]
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} is not a checkpoint of l2i, or is damaged ({error}); make it again."
        ) from None
    if version > FORMAT:
        raise CheckpointError(f"{path} was written by a newer l2i (format {version}); update l2i.")
    if held != kind:
        raise CheckpointError(f"{path} holds a {held}, where a {kind} is wanted.")
    return tensors, document


def read_settings(
    path: Path, metadata: Mapping[str, Any], wanted: SpectrogramSettings | None = None
) -> SpectrogramSettings:
    """The front-end that a network's checkpoint was made under.

    Raises
    ------
    CheckpointError
        If it differs from `wanted`.
    """
    return _read(path, metadata, SpectrogramSettings, wanted)


def read_domain(path: Path, metadata: Mapping[str, Any], wanted: Domain | None = None) -> Domain:
    """The transform that a checkpoint was made under; a front-end's bands do not count.

    Raises
    ------
    CheckpointError
        If it differs from `wanted`.
    """
    return _read(path, metadata, Domain, wanted and wanted.domain)


def _read(
    path: Path, metadata: Mapping[str, Any], kind: type[_Settings], wanted: _Settings | None
) -> _Settings:
    try:
        told = metadata["spectrogram"]
        have = kind(**{f.name: told[f.name] for f in fields(kind)})
    except (KeyError, TypeError):
        raise CheckpointError(f"{path} does not say what spectrogram it was made for.") from None
    if wanted is not None and (different := have.differences(wanted)):
        raise CheckpointError(
            f"{path} was made under other settings: {', '.join(different)} asked for now."
        )
    return have


def check_weights(module: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuse `tensors` that do not fit `module`, which may have shapes alone (device ``meta``).

    Raises
    ------
    CheckpointError
        Some are missing, unknown or of another shape; the first three of each are named.
    """
    own = module.state_dict()
    missing = sorted(set(own) - set(tensors))
    extra = sorted(set(tensors) - set(own))
    wrong = [
        f"{k} {tuple(tensors[k].shape)} for {tuple(own[k].shape)}"
        for k in own
        if k in tensors and tensors[k].shape != own[k].shape
    ]
    problems = [
        f"{word}: {', '.join(names[:3])}"
        for word, names in (("missing", missing), ("unknown", extra), ("of another shape", wrong))
        if names
    ]
    if problems:
        raise CheckpointError(f"{path} does not fit the network ({'; '.join(problems)}).")


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Put `tensors` into `module`, once `check_weights` has seen that they fit."""
    check_weights(module, tensors, path)
    with torch.no_grad():
        module.load_state_dict(dict(tensors))
