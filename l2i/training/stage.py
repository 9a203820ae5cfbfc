"""A part of a run that survives a crash: a folder, a lock, one state file.

A stage's folder is named after the signature of what it depends on, so that every run that needs
the same stage finds it, finished or begun::

    mlruns/work/stages/classifier-3f1c.../
        state.safetensors    after each epoch: weights, optimiser, best weights, history
        train/, validate/    what of the interpreter's features does not fit into memory
        <result>.safetensors when it is finished; all else is removed then
        lock                 held by the process that works on it

The state is one file, written atomically: weights and history can never disagree. An epoch's
randomness depends on seed, stage and epoch alone, so that a repeated epoch is the same epoch.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from l2i.models.checkpoint import load_checkpoint, save_checkpoint
from l2i.run.progress import Progress
from l2i.storage import file_lock

OnFigures = Callable[[str, int, dict[str, float]], None]


class Stage:
    """One stage, held by this process.

    Attributes
    ----------
    name : str
    folder : Path
        Must be there.
    history : list of dict
        Figures of each finished epoch.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        on_figures: OnFigures | None = None,
        on_save: Callable[[Path], None] | None = None,
    ) -> None:
        self.name = name
        self.folder = folder
        self.history: list[dict[str, float]] = []
        self._on_figures = on_figures or (lambda name, step, figures: None)
        self._on_save = on_save or (lambda path: None)

    @property
    def result(self) -> Path:
        """The stage's checkpoint; it exists when the stage is finished."""
        return self.folder / f"{self.name}.safetensors"

    @property
    def _state(self) -> Path:
        return self.folder / "state.safetensors"

    def publish(self) -> None:
        """Bring the store up to date with the history; steps it has are not written again.

        The state is saved before the figures are sent: a process killed in between sends them
        when it comes back.
        """
        for step, figures in enumerate(self.history, start=1):
            self._on_figures(self.name, step, figures)

    def restore(self, optimizer: Optimizer, **networks: nn.Module) -> dict[str, Tensor]:
        """Go back to the last finished epoch, if there is one.

        Parameters
        ----------
        optimizer : Optimizer
        **networks : nn.Module
            As they were given to `save`.

        Returns
        -------
        dict of str to Tensor
            The best weights so far; empty at the beginning.
        """
        if not self._state.exists():
            return {}
        tensors, document = load_checkpoint(self._state, "state")
        self.history = document["history"]
        for name, network in networks.items():
            network.load_state_dict(tensors_below(tensors, f"{name}."))
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors_below(tensors, "optimizer.").items():
            index, _, name = key.partition(".")
            state.setdefault(int(index), {})[name] = value
        optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
        self.publish()
        return tensors_below(tensors, "best.")

    def save(self, optimizer: Optimizer, best: Mapping[str, Tensor], **networks: nn.Module) -> None:
        """An epoch is finished: keep it, then show it."""
        # Adam's moments and steps by the index of their parameter.
        tensors = {
            f"optimizer.{index}.{name}": torch.as_tensor(value)
            for index, values in optimizer.state_dict()["state"].items()
            for name, value in values.items()
        }
        tensors |= {f"best.{k}": v for k, v in best.items()}
        for name, network in networks.items():
            tensors |= {f"{name}.{k}": v for k, v in network.state_dict().items()}
        save_checkpoint(self._state, "state", tensors, {"history": self.history})
        self._on_figures(self.name, len(self.history), self.history[-1])
        self._on_save(self._state)

    def finish(
        self, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any], settings: Any
    ) -> None:
        """Write the result, history included, and remove all else."""
        save_checkpoint(
            self.result, self.name, tensors, {**metadata, "history": self.history}, settings
        )
        self._tidy()
        self._on_save(self.result)

    def begin_anew(self) -> None:
        """Forget the result, and the epochs of one that is not finished."""
        self.result.unlink(missing_ok=True)
        self._tidy()

    def _tidy(self) -> None:
        """Remove what only the training needed; a process that was killed may have left it."""
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name not in (self.result.name, "lock"):
                path.unlink(missing_ok=True)

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The finished stage's tensors and metadata; its history goes into this run too."""
        self._tidy()
        tensors, document = load_checkpoint(self.result, self.name)
        self.history = document["history"]
        self.publish()
        return tensors, document


@contextmanager
def open_stage(
    name: str,
    signature: str,
    work: Path,
    progress: Progress,
    *,
    on_figures: OnFigures | None = None,
    on_save: Callable[[Path], None] | None = None,
) -> Iterator[Stage]:
    """Hold a stage; where another process holds it, wait until it has finished or died.

    Parameters
    ----------
    name, signature : str
    work : Path
    progress : Progress
    on_figures : callable, optional
        Given the stage's name, the number of an epoch, and its figures; often more than once.
    on_save : callable, optional
        Given the file that was written, after each epoch and at the end.
    """
    folder = work / "stages" / f"{name}-{signature}"
    folder.mkdir(parents=True, exist_ok=True)

    def waiting() -> None:
        progress.say(f"Another run works on the same {name}; waiting for it.")

    with file_lock(folder / "lock", waiting):
        yield Stage(name, folder, on_figures, on_save)


def tensors_below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Those whose names begin with `prefix`, by the rest of their names."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
