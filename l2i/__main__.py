"""``python -m l2i``: the same as the console script ``l2i``."""

from l2i.cli import main

if __name__ == "__main__":
    main()
