"""Other sample rates on the device, with gradients: torchaudio's part that is in torch alone.

torchaudio is imported where it is needed: it takes a second, and a build for another torch cannot
be imported at all.
"""

from __future__ import annotations

import importlib
from typing import Any

from torch import Tensor

from l2i.errors import DataError, MissingPackage

# The filter of torchaudio's documentation that comes closest to librosa's "kaiser_best".
_FILTER = {
    "lowpass_filter_width": 64,
    "rolloff": 0.9475937167399596,
    "resampling_method": "sinc_interp_kaiser",
    "beta": 14.769656459379492,
}


def torchaudio(what: str) -> Any:
    """The module; `what` needs it, as the sentence begins where it is not there.

    Raises
    ------
    MissingPackage
        It is not installed.
    DataError
        It is, and cannot be imported.
    """
    try:
        return importlib.import_module("torchaudio")
    except ModuleNotFoundError as error:
        if error.name != "torchaudio":
            raise DataError(
                f"{what} needs torchaudio, which cannot be imported: {error}."
            ) from error
        raise MissingPackage(what, "torchaudio") from None
    except Exception as error:  # The libraries of a build for another torch.
        first = str(error).strip().partition("\n")[0].rstrip(".")
        raise DataError(
            f"{what} needs torchaudio, which cannot be imported: {first}. 'l2i doctor' says more."
        ) from error


class Resampler:
    """Waveforms at one rate to another: band-limited interpolation (Smith, Gossett 1984), by
    `torchaudio.transforms.Resample`.

    Parameters
    ----------
    rate_in, rate_out : int
        Hz. Where they are the same nothing is done, and torchaudio is not needed.
    """

    def __init__(self, rate_in: int, rate_out: int) -> None:
        self.rates = rate_in, rate_out
        self._transform: Any = None
        if rate_in != rate_out:
            transforms = torchaudio("A model at another rate").transforms
            self._transform = transforms.Resample(rate_in, rate_out, **_FILTER)

    def length(self, samples: int) -> int:
        """How many samples become of so many.

        >>> Resampler(8000, 8000).length(7)
        7
        """
        rate_in, rate_out = self.rates
        return -(-samples * rate_out // rate_in)

    def __call__(self, waveform: Tensor) -> Tensor:
        """Waveforms [B, S'] of waveforms [B, S], float32; gradients flow."""
        if self._transform is None:
            return waveform
        return self._transform.to(waveform.device)(waveform.float())
