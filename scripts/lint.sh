#!/usr/bin/env bash
# Check style, format and types without running a test; the first call installs what that needs. The tests, the commit
# hook of .pre-commit-config.yaml and the GitHub workflow all call this.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

cd "$repo"
find_python dev export plots policies safetensors # the type checker reads the optional packages as well
"$python" -m ruff check .
"$python" -m ruff format --check .
"$python" -m mypy # half a minute at first, two seconds from then on
