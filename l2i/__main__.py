"""The console script ``l2i``, and ``python -m l2i``."""

from __future__ import annotations

import sys

from l2i.errors import MissingPackage


def main() -> None:
    """Run the command line; where what it is made with is not installed, say so, and end with 2."""
    try:
        from l2i.cli import main as run
    except ModuleNotFoundError as error:
        if error.name != "click":
            raise
        missing = MissingPackage("The command l2i", "click", alone=False)
        print(f"Error: {missing}", file=sys.stderr)
        sys.exit(missing.exit_code)
    run()


if __name__ == "__main__":
    main()
