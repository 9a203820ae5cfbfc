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
miniature in ``tests/miniatures.py``; ``tests/contracts/test_data_sets.py`` asks of every data
set what the rest of the package relies on:

- the card can be had without the data;
- clips have unique ids, labels within the card's classes, and a fixed order;
- clips of one group never stand on both sides of a split, and test clips are on no other side;
- a waveform is float32 ``[S]``, finite, of the rate and length asked for.

====================  ==========================================================
``base``              card, protocol, splits, data sets of files
``places``            where data sets and caches lie; csv files
``esc50``             ESC-50 and ESC-10
``sust``              SONYC-UST
``folder``            a folder of your own
``demo``              synthesised, with its parts known
``cache``             every clip decoded once
``fetch``             official sources, resumed and verified
====================  ==========================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from l2i.registry import Registry

if TYPE_CHECKING:
    from l2i import config
    from l2i.data.base import Card, DataSet

__all__ = ["DATASETS", "card", "open_dataset"]

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
)


def card(name: str) -> Card:
    """The card of a data set, which need not be at hand.

    >>> card("esc10").classes[:3]
    ('dog', 'rooster', 'rain')
    """
    found: Card = DATASETS[name].card
    return found


def open_dataset(wanted: config.Dataset) -> DataSet:
    """Open a data set, as the section ``[dataset]`` of a config describes it.

    Raises
    ------
    UnknownName
        There is no data set of this name.
    DataError
        It is not at hand (says where it was looked for, and what fetches it), or its list of
        clips is wrong.
    """
    data: DataSet = DATASETS[wanted.name].open(wanted)
    return data
