"""Put several runs on one page: `python scripts/compare_runs.py runs/a runs/b --out compare.html`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pocketprune.common.errors import UserError
from pocketprune.reporting.compare_page import compare


def main(arguments: Sequence[str]) -> int:
    """Run the command with these arguments. Return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", help="folders of finished runs (their --workdir)")
    parser.add_argument("--out", type=Path, default=Path("compare.html"), help="the page to write")
    given = parser.parse_args(arguments)
    try:
        print(compare(given.runs, given.out))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{given.out} written")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
