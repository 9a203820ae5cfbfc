"""``l2i doctor``: can this machine do it, in sentences that begin with yes, no or unknown; and
``l2i completion``: the script that makes its shell complete l2i's words."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from l2i.cli import options
from l2i.cli.base import Command, answered
from l2i.errors import L2IError, StoreError
from l2i.storage import existing

_GIB = 2**30
# A demo run was seen to need about 1.5 GiB of memory and 0.5 GB of disk.
_MEMORY_GIB = 2.0
_DISK_GIB = 2.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One answer.

    Attributes
    ----------
    about : str
        What was looked at, in a word that programs can rely on.
    answer : {'yes', 'no', 'unknown'}
    sentence : str
    blocks : bool
        Whether nothing works before this is mended.
    """

    about: str
    answer: str
    sentence: str
    blocks: bool = False


def _python() -> Iterator[Finding]:
    # An older one cannot read this file, and `make setup` refuses it.
    yield Finding("python", "yes", f"Python {platform.python_version()} is new enough.")


def _torch() -> Iterator[Finding]:
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Finding("torch", "no", f"torch cannot be imported: {error}.", blocks=True)
        yield Finding("cuda", "unknown", "Whether CUDA works cannot be told without torch.")
        return
    from l2i.run.device import cuda_problem

    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "the CPU"
    yield Finding("torch", "yes", f"torch {torch.__version__} works; it is built for {build}.")
    problem = cuda_problem()
    if problem is None:
        name = torch.cuda.get_device_name()
        total = torch.cuda.get_device_properties(0).total_memory / _GIB
        yield Finding("cuda", "yes", f"CUDA works, on {name} with {total:.0f} GiB.")
    else:
        yield Finding("cuda", "no", f"CUDA cannot be used: {problem}. The CPU will do.")


def _torchaudio() -> Iterator[Finding]:
    try:
        import torchaudio
    except (ImportError, OSError) as error:
        first = str(error).splitlines()[0]
        yield Finding(
            "torchaudio", "no", f"torchaudio cannot be imported: {first}; 'make setup' mends it."
        )
    else:
        yield Finding("torchaudio", "yes", f"torchaudio {torchaudio.__version__} can be imported.")


def _audio() -> Iterator[Finding]:
    try:
        import soundfile
    except (ImportError, OSError) as error:
        yield Finding("audio", "no", f"soundfile cannot be imported: {error}.", blocks=True)
        return
    there = soundfile.available_formats()
    missing = [name.lower() for name in ("WAV", "FLAC", "OGG", "MP3") if name not in there]
    if missing:
        yield Finding("audio", "no", f"libsndfile cannot read {', '.join(missing)}.")
    else:
        yield Finding("audio", "yes", "wav, flac, ogg and mp3 can be read; ffmpeg is not needed.")


def _store() -> Iterator[Finding]:
    from l2i.run.store import connect, locate

    try:
        store = locate()
        if store.exists:
            connect(store)
    except StoreError as error:
        yield Finding("store", "no", str(error), blocks=True)
        return
    if store.database is not None and not os.access(existing(store.database), os.W_OK):
        yield Finding("store", "no", f"The run store {store.shown} is read-only.", blocks=True)
    elif store.exists:
        yield Finding("store", "yes", f"The run store {store.shown} can be opened.")
    else:
        yield Finding("store", "yes", f"The run store {store.shown} can be made.")


def _cpu() -> Iterator[Finding]:
    from l2i.environment import cpu_count
    from l2i.run.device import cpu_has_bfloat16
    from l2i.run.provenance import cpu_model

    cores = cpu_count()
    noun = "core" if cores == 1 else "cores"
    yield Finding("cpu", "yes", f"{cores} {noun} may be used ({cpu_model()}).")
    if cpu_has_bfloat16():
        yield Finding("bfloat16", "yes", "The processor has bfloat16 (--precision bfloat16).")
    elif Path("/proc/cpuinfo").exists():
        yield Finding("bfloat16", "no", "The processor has no bfloat16; float32 is the way.")
    else:
        yield Finding("bfloat16", "unknown", "This system does not say whether it has bfloat16.")


def _memory() -> Iterator[Finding]:
    import psutil

    free = psutil.virtual_memory().available / _GIB
    wanted = f"; {_MEMORY_GIB:.0f} are wanted: close something, or take smaller batches"
    answer, more = ("yes", "") if free >= _MEMORY_GIB else ("no", wanted)
    yield Finding("memory", answer, f"{free:.1f} GiB of memory are free{more}.")


def _disk() -> Iterator[Finding]:
    from l2i.data.places import cache_folder

    places = {"runs": Path.cwd(), "data and caches": cache_folder()}
    for what, path in places.items():
        free = shutil.disk_usage(existing(path)).free / _GIB
        answer, more = ("yes", "") if free >= _DISK_GIB else ("no", f"; {_DISK_GIB:.0f} are wanted")
        sentence = f"{free:.1f} GiB are free for {what} ({path}){more}."
        yield Finding("disk", answer, sentence, blocks=free < 0.1)


def _data() -> Iterator[Finding]:
    from l2i import config
    from l2i.data import DATASETS, open_dataset

    for name in DATASETS:
        if name == "folder":
            continue  # It has no place of its own.
        try:
            clips = len(open_dataset(config.Dataset(name=name)).clips())
        except L2IError:
            yield Finding("data", "no", f"{name} is not here; 'l2i data fetch {name}' fetches it.")
        else:
            yield Finding("data", "yes", f"{name} is here, with {clips} clips.")


# Each is called by what it is about.
_CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    *(_python, _torch, _torchaudio, _audio, _store, _cpu, _memory, _disk, _data),
)


def examine() -> list[Finding]:
    """Every finding; a check that breaks is itself a finding (unknown)."""
    findings: list[Finding] = []
    for check in _CHECKS:
        try:
            findings += check()
        except Exception as error:
            # A broken installation breaks in ways nobody foresees; the rest is still worth saying.
            first = str(error).splitlines()[0] if str(error) else ""
            sentence = f"This check broke: {type(error).__name__}: {first}"
            findings.append(Finding(check.__name__.strip("_"), "unknown", sentence))
    return findings


@click.command(cls=Command, example=["l2i doctor", "l2i doctor --json"])
@options.as_json
def doctor() -> int:
    """Check this machine: sentences with yes, no or unknown.

    A 'no' that nothing works without makes the exit code 1; most are only good to know.
    """
    findings = examine()
    if not answered([asdict(finding) for finding in findings]):
        colours = {"yes": "green", "no": "yellow", "unknown": None}
        for finding in findings:
            colour = "red" if finding.blocks and finding.answer == "no" else colours[finding.answer]
            click.echo(click.style(f"{finding.answer:8}", fg=colour) + finding.sentence)
    return int(any(finding.blocks and finding.answer == "no" for finding in findings))


_WHERE = {
    "bash": '~/.bashrc:  eval "$(l2i completion bash)"',
    "zsh": '~/.zshrc:  eval "$(l2i completion zsh)"',
    "fish": "l2i completion fish > ~/.config/fish/completions/l2i.fish",
}


@click.command(cls=Command, example=[f"# {shell}\n  {line}" for shell, line in _WHERE.items()])
@click.argument("shell", type=click.Choice(list(_WHERE)))
def completion(shell: str) -> None:
    """Print the script that makes SHELL complete l2i's commands and options."""
    from click.shell_completion import get_completion_class

    from l2i.cli import cli

    kind = get_completion_class(shell)
    assert kind is not None
    # BashComplete.source asks the bash on PATH for its version; the script itself needs no bash.
    maker = kind(cli, {}, "l2i", "_L2I_COMPLETE")
    click.echo(maker.source_template % maker.source_vars())
