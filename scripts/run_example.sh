#!/usr/bin/env bash
# Run an example on this machine; the first call installs what it needs.
#
#   bash scripts/run_example.sh segmentation
#   bash scripts/run_example.sh detection --share 0.8
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

name=${1:-}
if [ ! -f "$repo/examples/$name.py" ]; then
    fail "'$name': expected segmentation, detection, two_inputs, own_training_loop or model_library"
fi
shift
find_python
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}
cd "$repo"
exec "$python" -m "examples.$name" "$@"
