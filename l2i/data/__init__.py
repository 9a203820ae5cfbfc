"""Data sets: what is listened to, and what it is.

To open one, split it and have its waveforms::

    from l2i import config
    from l2i.data import open_dataset
    from l2i.data.cache import WaveformCache

    data = open_dataset(config.Dataset(name="demo"))
    split = data.split(fold=1, validation_share=0.1, seed=0)
    waveforms = WaveformCache().open(data, data.clips())
    x = waveforms.take(split.train[:32])        # float32 [32, S]

To add one, write a module in this folder with an `Entry`: its `Card`, and a function from
`l2i.config.Dataset` to a `DataSet` (`Files` is one for whoever has clips in files; `esc50` is the
shortest example). Then name it in the table below, give it a preset in ``l2i/presets``, and a
miniature in ``tests/miniatures.py``; or, without a change here, name it as ``MODULE:ENTRY`` or by
an entry point ``l2i.datasets``. ``tests/contracts/test_data_sets.py`` asks of every data set what
the rest of the package relies on:

- the card can be had without the data;
- clips have unique ids, labels within the card's classes, and a fixed order;
- clips of one group never stand on both sides of a split, and test clips are on no other side;
- a waveform is float32 ``[S]``, finite, of the rate and length asked for.

====================  ==========================================================
``base``              what the module of a data set needs, of the next three
``card``              what a data set is: card and protocol
``split``             test, training and validation clips
``files``             data sets of sound files
``places``            where data sets and caches lie; csv files
``esc50``             ESC-50 and ESC-10
``sust``              SONYC-UST
``folder``            a folder of your own
``demo``              synthesised, with its parts known
``sounds``            what those parts are made of
``planted``           another one, with a cue in the clips of a class
``cache``             every clip decoded once
``digests``           digests of what files hold
``fetch``             official sources, resumed and verified
``remote``            a data set at ``s3://``, brought here as far as it is wanted
====================  ==========================================================
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from l2i.environment import usual_data_dir
from l2i.errors import UsageError
from l2i.registry import Registry
from l2i.storage.s3 import is_s3

if TYPE_CHECKING:
    from collections.abc import Sequence

    from l2i import config
    from l2i.data.base import Card, DataSet
    from l2i.data.remote import OnBytes
    from l2i.types import Clip

__all__ = ["DATASETS", "card", "open_dataset", "refuse_folder"]

DATASETS = Registry(
    "data set",
    {
        "demo": "l2i.data.demo:DEMO",
        "demo-multilabel": "l2i.data.demo:DEMO_MULTILABEL",
        "esc10": "l2i.data.esc50:ESC10",
        "esc50": "l2i.data.esc50:ESC50",
        "sust": "l2i.data.sust:SUST",
        "folder": "l2i.data.folder:FOLDER",
    },
    "l2i.datasets",
)


def card(name: str) -> Card:
    """The card of a data set, which need not be at hand.

    >>> card("esc10").classes[:3]
    ('dog', 'rooster', 'rain')
    """
    return DATASETS[name].card


def refuse_folder(name: str, data_dir: str) -> None:
    """Refuse a folder that was named for a data set which is built in, and would not be read.

    ``L2I_DATA_DIR`` is for all data sets, and passed by.

    Raises
    ------
    UsageError
    """
    if data_dir and data_dir != usual_data_dir() and not card(name).takes_folder:
        raise UsageError(
            f"The data set {name!r} is built in and takes no folder: what --data-dir names would "
            "not be read. Leave it out, or give '--dataset folder' for a folder of your own."
        )


def open_dataset(
    wanted: config.Dataset,
    seed: int = 0,
    on_bytes: OnBytes | None = None,
    *,
    unlabelled: bool = False,
) -> DataSet:
    """Open a data set, as the section ``[dataset]`` of a config describes it.

    One that lies at ``s3://`` is brought into the cache first, as far as it is wanted.

    Parameters
    ----------
    wanted : l2i.config.Dataset
    seed : int
        Decides which clips are taken if only some are wanted.
    on_bytes : callable, optional
        Called with the bytes fetched since the last call, and the bytes of all.
    unlabelled : bool
        Labels are not needed: a folder of sound files will do.

    Raises
    ------
    UnknownName
        There is no data set of this name.
    DataError
        It is not at hand (says where it was looked for, and what fetches it), or its list of
        clips is wrong.
    """
    entry = DATASETS[wanted.name]
    if unlabelled and entry.open_unlabelled is not None:
        entry = replace(entry, open=entry.open_unlabelled)
    if not is_s3(wanted.data_dir):
        return entry.open(wanted)
    from l2i.data.remote import open_remote

    def needed(dataset: DataSet) -> Sequence[Clip]:
        if wanted.limit is None:
            return dataset.clips()
        split = dataset.split(wanted.fold, wanted.validation_share, seed, wanted.limit)
        return [*split.train, *split.validate, *split.test]

    return open_remote(entry, wanted, needed, on_bytes)
