"""The input of a served model: a row each for a file, its bytes, or samples."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from l2i.dsp.audio import read_part, resample
from l2i.errors import DataError
from l2i.recipes.opening.bundle import MAX_SECONDS

# A row has one of the first three, and samples have their rate.
_COLUMNS = ("path", "bytes", "samples", "sample_rate")
_ONE_OF = "one of path, bytes and samples (with sample_rate)"


def _given(value: Any) -> bool:
    """Whether a cell holds something: what a row has not, pandas fills with None or NaN."""
    missing = value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value))
    return not missing


def rows_of(model_input: Any) -> list[Any]:
    """The rows of whatever MLflow hands on."""
    if isinstance(model_input, pd.DataFrame):
        # One without columns has rows all the same.
        return model_input.to_dict("records") or [{}] * len(model_input)
    if isinstance(model_input, (str, bytes, bytearray, Mapping)):
        return [model_input]
    try:
        return list(model_input)
    except TypeError:  # Nothing of several.
        return [model_input]


def columns_of(row: Any) -> dict[str, Any]:
    """What a row holds, by its columns.

    Raises
    ------
    DataError
        It is none, or has a column that none has.
    """
    if isinstance(row, (str, os.PathLike)):
        return {"path": row}
    if isinstance(row, (bytes, bytearray)):
        return {"bytes": row}
    if not isinstance(row, Mapping):
        raise DataError(
            f"a row is a path, the bytes of a sound file, or a dict with {_ONE_OF}; it is of type "
            f"{type(row).__name__}."
        )
    cells = {str(k): v for k, v in row.items() if _given(v)}
    if unknown := sorted(set(cells) - set(_COLUMNS)):
        raise DataError(f"it has a column {unknown[0]!r}; a row has {_ONE_OF}.")
    return cells


def sound_of(row: Mapping[str, Any], sample_rate: int) -> NDArray[np.float32]:
    """The sound [S] of a row, at `sample_rate` (Hz).

    Raises
    ------
    DataError
        There is none, it cannot be read, or it is too long.
    """
    given = [name for name in _COLUMNS[:3] if name in row]
    if len(given) != 1:
        which = f"it has {' and '.join(given)}" if given else "it has none"
        raise DataError(f"a row has {_ONE_OF}; {which}.")
    (kind,) = given
    if kind == "samples":
        x = _samples(row, sample_rate)
    elif kind == "path":
        if not isinstance(row["path"], (str, os.PathLike)):
            raise DataError(f"path is the name of a file, and not {row['path']!r}.")
        x = _read(Path(row["path"]), sample_rate)
    else:
        x = _bytes(row["bytes"], sample_rate)
    if len(x) > MAX_SECONDS * sample_rate:
        raise DataError(
            f"the sound is longer than {MAX_SECONDS:.0f} s, the most that is explained at once."
        )
    return x


def _read(path: Path, sample_rate: int) -> NDArray[np.float32]:
    # No more of an hour is read than shows that it is too long.
    return read_part(path, sample_rate, duration_s=MAX_SECONDS + 1)


def _samples(row: Mapping[str, Any], sample_rate: int) -> NDArray[np.float32]:
    try:
        rate = float(row["sample_rate"])
    except (KeyError, TypeError, ValueError):
        rate = 0.0
    if not rate.is_integer() or not 1 <= rate <= 768_000:
        raise DataError("samples need their sample_rate, a whole number of Hz.")
    try:
        x = np.asarray(row["samples"], dtype=np.float32)
    except (TypeError, ValueError):
        raise DataError("samples are no list of numbers.") from None
    if x.ndim != 1 or not x.size:
        raise DataError(f"samples are one list of numbers, mono, and not of shape {x.shape}.")
    if not np.isfinite(x).all():
        raise DataError("there are samples that are NaN or infinite.")
    x = resample(np.ascontiguousarray(x), rate, sample_rate)
    if not x.size:
        raise DataError(f"no samples are left at {sample_rate} Hz: the sound is too short.")
    return x


def _bytes(data: Any, sample_rate: int) -> NDArray[np.float32]:
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise DataError("bytes are those of a sound file (in JSON: in base64).")
    # By way of a file: one reader, and its messages, for all sounds.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sound"
        path.write_bytes(bytes(data))
        try:
            return _read(path, sample_rate)
        except DataError as error:
            raise DataError(str(error).replace(str(path), "the sound")) from None
