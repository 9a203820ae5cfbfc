"""Which device, which arithmetic, how many threads; and every seed.

Nothing here changes what a recipe computes on a CPU in float32: the same seed gives the same
figures to the last digit, whatever was done before a crash, because the randomness of an epoch
comes from `epoch_generator` and not from where a global generator happens to stand.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import random
import re
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from l2i.environment import cpu_count
from l2i.errors import DeviceError

if TYPE_CHECKING:
    import torch


def cuda_problem() -> str | None:
    """Why CUDA cannot be used, as the end of a sentence, or None where it can.

    A build of torch that has CUDA and a driver that answers may still not fit together, so that
    a number is really added on the device.
    """
    import torch

    if torch.version.cuda is None:
        return f"torch {torch.__version__} is a build without CUDA"
    try:
        with warnings.catch_warnings(action="ignore"):  # What they say is asked for below.
            if not torch.cuda.is_available():
                return _why_no_device()
        value = (torch.ones(1, device="cuda") + 1).item()
    except RuntimeError as error:
        return f"the CUDA device does not work: {str(error).splitlines()[0]}"
    return None if value == 2.0 else "the CUDA device computes wrongly"


def _why_no_device() -> str:
    import torch

    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        # What torch says goes on with links and with advice of its own.
        first = str(error).strip().splitlines()[0]
        if old := re.search(r"driver .* too old \(found version (\d+)\)", first):
            version = f"{int(old[1]) // 1000}.{int(old[1]) % 1000 // 10}"
            return (
                f"the NVIDIA driver is too old: it goes up to CUDA {version}, torch "
                f"{torch.__version__} needs CUDA {torch.version.cuda}; install a newer driver"
            )
        if "no NVIDIA driver" in first:
            return (
                "there is no NVIDIA driver here (in a container: docker run --gpus all, which "
                "needs NVIDIA's container toolkit on the machine)"
            )
        return first.partition(" Please ")[0].rstrip(". ")
    return "torch sees no CUDA device"


def cpu_has_bfloat16() -> bool:
    """Whether the processor has instructions for bfloat16 (AVX512-BF16, AMX, or ARM's).

    Without them torch emulates it, which is slower than float32.
    """
    try:
        words = set(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split())
    except OSError:
        return False
    return bool(words & {"avx512_bf16", "amx_bf16", "bf16"})


def pick_device(name: str, precision: str) -> tuple[torch.device, torch.dtype, list[str]]:
    """The device and the arithmetic that the words of a config mean on this machine.

    Parameters
    ----------
    name : {'auto', 'cpu', 'cuda', 'mps'}
        ``auto`` is CUDA where it works, else MPS, else the CPU.
    precision : {'float32', 'bfloat16', 'float16', 'auto'}
        For the matrix products under autocast; weights stay float32. ``auto`` is what the device
        has instructions for: bfloat16, on an older CUDA device float16, float32 elsewhere.

    Returns
    -------
    device : torch.device
    dtype : torch.dtype
    sentences : list of str
        What was chosen and why, to be shown and kept.

    Raises
    ------
    DeviceError
        What was asked for is not there.
    """
    import torch

    why = ""
    if name == "auto":
        problem = cuda_problem()
        name = "cuda" if problem is None else "mps" if torch.backends.mps.is_available() else "cpu"
        why = f" ({problem})" if name == "cpu" else ""
    elif name == "cuda":
        problem = cuda_problem()
        if problem is not None:
            raise DeviceError(f"--device cuda cannot be had: {problem}; take --device auto.")
    elif name == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("--device mps cannot be had: it needs macOS on Apple silicon.")

    shown = torch.cuda.get_device_name() if name == "cuda" else name
    if precision == "auto":
        precision = "float32"
        if name == "cuda":
            native = torch.cuda.is_bf16_supported(including_emulation=False)
            precision = "bfloat16" if native else "float16"
        elif name == "cpu" and cpu_has_bfloat16():
            precision = "bfloat16"
    if precision == "float16" and name != "cuda":
        raise DeviceError(
            f"--precision float16 needs a CUDA device, not {name}; take float32 or bfloat16."
        )
    if precision == "bfloat16":
        if name == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
            raise DeviceError(f"{shown} has no bfloat16; take --precision float16 or float32.")
        if name == "cpu" and not cpu_has_bfloat16():
            raise DeviceError("This processor has no bfloat16; take --precision float32.")
        if name == "mps":
            raise DeviceError("--precision bfloat16 is not offered on mps; take float32.")
    return torch.device(name), getattr(torch, precision), [f"Device: {shown}, {precision}{why}."]


def learning_dtype(
    word: str, device: torch.device, otherwise: torch.dtype, setting: str
) -> torch.dtype:
    """What a network is trained in, which may be less precise than all else.

    Parameters
    ----------
    word : {'', 'float32', 'bfloat16', 'float16', 'auto'}
        As for `pick_device`; but ``auto`` is never float16, below whose range gradients would be
        lost.
    device : device
    otherwise : dtype
        What an empty word means.
    setting : str
        Which setting the word is of, for the message.

    Returns
    -------
    dtype

    Raises
    ------
    DeviceError
        The device cannot do what the word asks for.
    """
    import torch

    if not word:
        return otherwise
    try:
        chosen = pick_device(device.type, word)[1]
    except DeviceError as error:
        # The option's words, of this setting.
        raise DeviceError(str(error).replace("--precision", setting)) from None
    return torch.float32 if word == "auto" and chosen == torch.float16 else chosen


def keep_memory() -> bool:
    """Let the C library keep the memory that torch frees, for what torch allocates next.

    A batch's maps are tens of megabytes each. glibc fetches such a block from the system, page by
    page and zeroed, and gives it back, at every operation: a third of the time of a training on a
    CPU. Kept, the pages are fetched once. The process then holds its largest size until it ends.

    Returns
    -------
    bool
        Whether it could be asked for: with glibc, that is on Linux for the most part.
    """
    if not sys.platform.startswith("linux"):
        return False
    m_trim_threshold, m_top_pad, m_mmap_max = -1, -2, -4  # malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    # No block of its own for what is large; never back to the system; grown by 64 MiB at a time.
    wanted = ((m_mmap_max, 0), (m_trim_threshold, 2**31 - 1), (m_top_pad, 2**26))
    return all(mallopt(name, value) == 1 for name, value in wanted)


def set_threads(n: int = 0) -> int:
    """Let torch compute with `n` threads; 0: ``OMP_NUM_THREADS`` or one per physical core.

    It is also where `keep_memory` is asked for, since all that computes begins here.

    Returns
    -------
    int
        The number that was set.
    """
    import torch

    if n == 0:
        word = os.environ.get("OMP_NUM_THREADS", "")
        n = int(word) if word.isdigit() and int(word) > 0 else cpu_count()
    torch.set_num_threads(n)
    keep_memory()
    return n


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and torch's global generators."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def epoch_generator(seed: int, *words: str | int) -> torch.Generator:
    """A generator on the CPU that depends on nothing but its arguments.

    Parameters
    ----------
    seed : int
    *words : str or int
        What it is for, ``"interpreter", epoch`` say: an epoch that is repeated after a crash
        draws what it drew before.

    Examples
    --------
    >>> import torch
    >>> a = torch.rand(2, generator=epoch_generator(0, "interpreter", 3))
    >>> b = torch.rand(2, generator=epoch_generator(0, "interpreter", 3))
    >>> c = torch.rand(2, generator=epoch_generator(0, "interpreter", 4))
    >>> bool((a == b).all()), bool((a == c).any())
    (True, False)
    """
    import torch

    digest = hashlib.sha256(repr((seed, *words)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
