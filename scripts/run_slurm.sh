#!/usr/bin/env bash
# Run PocketPrune on the nodes of a Slurm allocation: one torchrun a node, one process a GPU (or -n=K processes a node).
#
#   sbatch --nodes 2 --gpus-per-node 4 scripts/run_slurm.sh nets/resnet_at_cifar10_run.py --learner channel --workdir /shared/run
#   salloc --nodes 2 scripts/run_slurm.sh -n=2 --device cpu --learner channel --workdir /shared/run
#
# The nodes must share --workdir. Slurm's SIGTERM before the time limit saves the state: submit the same command again
# and it goes on; `#SBATCH --signal=TERM@60` asks for a minute.
#SBATCH --job-name=pocketprune
#SBATCH --ntasks-per-node=1
#SBATCH --signal=TERM@60
set -euo pipefail
repo=${POCKETPRUNE:-${SLURM_SUBMIT_DIR:-}}
[ -f "$repo/scripts/environment.sh" ] || repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$repo/scripts/environment.sh"

[ -n "${SLURM_JOB_ID:-}" ] || fail "run_slurm.sh: not inside a Slurm allocation; use sbatch or salloc, or scripts/run_local.sh"
processes=${SLURM_GPUS_ON_NODE:-1}
read_arguments "$@"

find_python
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 20000))
exec srun --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --kill-on-bad-exit=1 \
    "$python" "$repo/scripts/launch.py" --nnodes "$SLURM_JOB_NUM_NODES" --nproc_per_node "$processes" \
    --rdzv_id "$SLURM_JOB_ID" --rdzv_backend c10d --rdzv_endpoint "$first:$port" --rdzv_conf join_timeout=120 \
    "$repo/run.py" ${arguments[@]+"${arguments[@]}"}
