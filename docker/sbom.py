"""What an image is made of: ``docker run --rm -i --entrypoint python l2i:cpu - < docker/sbom.py``.

Prints a bill of materials as CycloneDX 1.5 JSON: the Python distributions and the Debian packages
in it, with versions, licences and package URLs. With the word ``licences`` it prints a table
instead. It is run in the image, by the image's Python, and needs nothing that is not there; the
same image gives the same words.

``make sbom`` and ``make licences`` call it.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any
from urllib.parse import quote

# Where metadata has no licence expression, its classifiers' last words are the best there is.
_CLASSIFIER = "License :: "
_MAX_LENGTH = 100


def licence(distribution: Distribution) -> str:
    """A distribution's licence in its own words, in one line; empty where it says none.

    In this order: the SPDX expression, a short text in the field for it, the classifiers.
    """
    told = distribution.metadata
    expression = (told.get("License-Expression") or "").strip()
    if expression:
        return expression
    field = " ".join((told.get("License") or "").split())
    if field and len(field) <= _MAX_LENGTH and field != "UNKNOWN":
        return field
    words = [
        line.rpartition(" :: ")[2]
        for line in told.get_all("Classifier") or ()
        if line.startswith(_CLASSIFIER)
    ]
    return " AND ".join(words)


def python_packages() -> Iterator[dict[str, Any]]:
    """The distributions on this Python's path."""
    for distribution in sorted(distributions(), key=lambda d: d.name.lower()):
        name = re.sub(r"[-_.]+", "-", distribution.name).lower()
        yield component(
            name, distribution.version, licence(distribution), f"pkg:pypi/{quote(name)}", "pypi"
        )


def debian_packages() -> Iterator[dict[str, Any]]:
    """The packages that dpkg knows to be installed, with the licences their copyright names."""
    status = Path("/var/lib/dpkg/status").read_text(encoding="utf-8")
    for entry in status.split("\n\n"):
        fields = dict(re.findall(r"^([\w-]+): (.*)$", entry, re.MULTILINE))
        if not fields.get("Status", "").endswith(" installed"):
            continue
        name = fields["Package"]
        copyright_file = Path("/usr/share/doc") / name / "copyright"
        words: list[str] = []
        if copyright_file.exists():
            text = copyright_file.read_text(encoding="utf-8", errors="replace")
            words = sorted(set(re.findall(r"^License: *(\S.*?) *$", text, re.MULTILINE)))
            words = words or [f"see {copyright_file}"]  # Not in the form that programs can read.
        url = f"pkg:deb/debian/{quote(name)}"
        yield component(name, fields["Version"], " AND ".join(words), url, "deb")


def component(name: str, version: str, licence: str, url: str, kind: str) -> dict[str, Any]:
    """One entry of the bill."""
    purl = f"{url}@{quote(version)}"
    entry: dict[str, Any] = {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": version,
        "purl": purl,
        "properties": [{"name": "l2i:kind", "value": kind}],
    }
    if licence:
        entry["licenses"] = [{"license": {"name": licence}}]
    return entry


def bill() -> dict[str, Any]:
    """The whole bill, in the order of names."""
    digest = os.environ.get("L2I_IMAGE_DIGEST", "unknown")
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": {
                "type": "container",
                "bom-ref": f"l2i@{digest}",
                "name": "l2i",
                "version": os.environ.get("L2I_REVISION", "unknown"),
                "properties": [
                    {"name": "l2i:digest", "value": digest},
                    {"name": "l2i:python", "value": platform.python_version()},
                ],
            }
        },
        "components": [*python_packages(), *debian_packages()],
    }


def main() -> None:
    """Print one or the other."""
    document = bill()
    if sys.argv[1:] != ["licences"]:
        print(json.dumps(document, indent=2, ensure_ascii=False))
        return
    for entry in document["components"]:
        kind = entry["properties"][0]["value"]
        words = entry.get("licenses", [{"license": {"name": "not said"}}])[0]["license"]["name"]
        print(f"{kind:5} {entry['name']:32} {entry['version']:28} {words}")


if __name__ == "__main__":
    main()
