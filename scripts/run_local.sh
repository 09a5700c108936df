#!/usr/bin/env bash
# Run PocketPrune on this machine; the first call installs what it needs.
#
#   bash scripts/run_local.sh --learner channel --cp_prune_option uniform
#   bash scripts/run_local.sh nets/resnet_at_cifar10_run.py --learner channel --cp_uniform_preserve_ratio 0.5
#
# NET_at_DATASET, as a name or in PocketFlow's form nets/NET_at_DATASET_run.py, sets --net and --dataset.
# -n=K (or --nb_gpus=K) starts K processes that train together, on K GPUs where there are any.
# Everything else goes to run.py: `bash scripts/run_local.sh --help` lists it.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

processes=1
read_arguments "$@"

extras=()
[[ " ${arguments[*]:-} " =~ \ --?exec_mode[=\ ]export\  ]] && extras=(export)

find_python ${extras[@]+"${extras[@]}"}
# Threads that wait for each other should sleep: where anything else runs too, spinning costs several times the work.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}
[ -t 2 ] || export TQDM_MININTERVAL=${TQDM_MININTERVAL:-10} # seconds between two states of a bar in a log file
launcher=("$python")
if [ "$processes" -gt 1 ]; then
    launcher+=("$repo/scripts/launch.py" --standalone --nproc_per_node "$processes")
fi
exec "${launcher[@]}" "$repo/run.py" ${arguments[@]+"${arguments[@]}"}
