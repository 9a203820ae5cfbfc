"""The start page of ``l2i ui``: all runs of a store, what they reach, and a way to hear each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from l2i.pages.page import Figure, escape, figures_explained, figures_listed, page_text


@dataclass(frozen=True, slots=True)
class RunCard:
    """What the page says of a run.

    Attributes
    ----------
    name, about : str
        About: experiment, how it ended, when it began.
    figures : sequence of Figure
        The run's main figures.
    warnings : sequence of str
        Why the figures should not be relied on.
    links : mapping of str to str
        Word to address.
    listen : str
        The address of its page to listen to; empty where it has none.
    """

    name: str
    about: str
    figures: Sequence[Figure]
    warnings: Sequence[str]
    links: Mapping[str, str]
    listen: str = ""

    def _html(self) -> str:
        doubts = "".join(f'<p class="doubt">⚠ {escape(text)}</p>' for text in self.warnings)
        links = [f'<a href="{escape(to)}">{escape(word)}</a>' for word, to in self.links.items()]
        if self.listen:
            name = escape(self.name)
            links.insert(
                0,
                f'<a class="listen" href="{escape(self.listen)}" aria-label="Listen to {name}">'
                "▶ Listen</a>",
            )
        return (
            f'<li class="run"><h2>{escape(self.name)}</h2><p class="soft">{escape(self.about)}</p>'
            f'<ul class="figures">{figures_listed(self.figures)}</ul>{doubts}'
            f'<div class="links">{" ".join(links)}</div>'
        )


def start_page(store: str, cards: Sequence[RunCard], steps: Mapping[str, str]) -> str:
    """The page.

    Parameters
    ----------
    store : str
        Where the runs are kept, for people.
    cards : sequence of RunCard
    steps : mapping of str to str
        Commands to give next, and what each is for.
    """
    todo = "".join(
        f"<dt>{escape(line)}</dt><dd>{escape(why)}</dd>\n" for line, why in steps.items()
    )
    fields = {
        "store": escape(f"Runs in {store}, the newest first."),
        "means": figures_explained(figure for card in cards for figure in card.figures),
        "runs": "\n".join(card._html() for card in cards),
        "next": todo,
    }
    return page_text("start", "l2i: runs", fields)
