#!/usr/bin/env bash
# Run PocketPrune on this machine; the first call installs what it needs.
#
#   bash scripts/run_local.sh --learner channel --cp_prune_option uniform
#   bash scripts/run_local.sh nets/resnet_at_cifar10_run.py --learner channel --cp_uniform_preserve_ratio 0.5
#
# A first argument NET_at_DATASET, as a name or in PocketFlow's form nets/NET_at_DATASET_run.py, sets --net and
# --dataset. Everything else goes to run.py: `bash scripts/run_local.sh --help` lists it.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

arguments=()
if [[ ${1:-} != -* && ${1:-} == *_at_* ]]; then
    entry=$(basename "$1" .py)
    entry=${entry%_run}
    arguments+=(--net "${entry%%_at_*}" --dataset "${entry#*_at_}")
    shift
fi

find_python
exec "$python" "$repo/run.py" ${arguments[@]+"${arguments[@]}"} "$@"
