"""What an explanation of one clip is: its sounds, its mask, what the classifier says of both; in
files, and on a page to listen to.
"""

from l2i.explained.asked import explain_by
from l2i.explained.value import Component, Explained, Probabilities, energy_share, pictured, size_of
from l2i.explained.written import Written, write_explained

__all__ = [
    "Component",
    "Explained",
    "Probabilities",
    "Written",
    "energy_share",
    "explain_by",
    "pictured",
    "size_of",
    "write_explained",
]
