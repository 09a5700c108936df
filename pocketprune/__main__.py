"""Start the command with `python -m pocketprune`."""

import sys

from pocketprune.cli.main import main

sys.exit(main(sys.argv[1:]))
