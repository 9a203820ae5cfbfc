"""Pages of a run that need nothing else: no network, no server, no other file.

================  ==========================================================================
``listening``     ``index.html``: the clips with their sounds, to listen to and to compare
``figures``       ``figures.html``: curves, confusions, faithfulness, a table per class
``start``         the start page of ``l2i ui``: all runs of a store
``sound``         the sounds of a page, and how small they must be
``pictures``      spectrograms and masks as small pictures
``page``          templates, escaping, and what keeps a page self-contained
================  ==========================================================================

MLflow shows such a file in a sandboxed frame of no origin: scripts run there, but relative links,
storage and downloads do not. So everything is inline, and what needs more than that (notes that
last, downloads, an address for each clip) is offered where the page is opened by itself. Only in a
folder of files of one's own, where it would be too large, sounds and pictures lie beside the page.
The templates beside this file are plain HTML, CSS and JavaScript; there is no build step.

A page's content security policy names its own script and style by their digests and allows
pictures from ``data:`` alone. What a file or a class is called cannot become code, and nothing
can be fetched, even if a name were ever inserted carelessly.
"""

from l2i.pages.figures import write_figures_page
from l2i.pages.listening import Media, MediaList, write_listening_page
from l2i.pages.page import MAX_BYTES, Figure, refuse_foreign

__all__ = [
    "MAX_BYTES",
    "Figure",
    "Media",
    "MediaList",
    "refuse_foreign",
    "write_figures_page",
    "write_listening_page",
]
