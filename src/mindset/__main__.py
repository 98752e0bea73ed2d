"""Entry point of `mindset` and `python -m mindset`.

`mindset --help` alone answers from a generated page: building the same page through click would take five
times as long as starting Python. Does not know the commands. Invariant: the page is what click would print
(tested).
"""

from __future__ import annotations

import sys

HELP_PAGE = "cli/help.txt"


def main() -> None:
    """Run the command line."""
    if sys.argv[1:] in (["--help"], ["-h"]):
        print_help_page()
        return
    from mindset.cli.app import app

    app(prog_name="mindset")


def print_help_page() -> None:
    """Write the generated help page to stdout."""
    folder = __file__.rpartition("/")[0] or __file__.rpartition("\\")[0]
    with open(f"{folder}/{HELP_PAGE}", encoding="utf-8") as page:  # noqa: PTH123 - pathlib costs half of the start-up
        sys.stdout.write(page.read())


if __name__ == "__main__":
    main()
