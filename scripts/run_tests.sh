#!/usr/bin/env bash
# Lint and test the project; the first call installs what that needs. Arguments go to pytest:
#
#   bash scripts/run_tests.sh                      the default suite
#   bash scripts/run_tests.sh -m slow              the minutes-long tests
#   bash scripts/run_tests.sh tests/test_run.py    one file
#
# The tests run in as many processes as there are cores, four at most; -n 0 runs them in one.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

cd "$repo"
find_python dev export plots policies safetensors
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} # the tensors are small: more threads only wait for each other
PYTHON=$python bash scripts/lint.sh
exec "$python" -m pytest -n auto --maxprocesses 4 --dist worksteal "$@"
