#!/bin/bash
# A run over the nodes of one Slurm job: sbatch deploy/slurm.sh SPEC RUN
# RUN is a folder that all nodes see, or a URI. A job that is pre-empted is put into the queue again and goes on.
#SBATCH --job-name=bocb-tune
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=4
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@300
set -euo pipefail
spec=${1:?SPEC} run=${2:?RUN}
port=6379

# Slurm sends SIGTERM five minutes before the end of the time, or of the job's turn: the epochs in flight are finished.
driver=
again() {
    if [ -n "$driver" ]; then
        kill -TERM "$driver" || true
        wait "$driver" || true
    fi
    scontrol requeue "$SLURM_JOB_ID"
    exit
}
trap again TERM

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)
address=$(srun --nodes=1 --ntasks=1 -w "$head" hostname --ip-address | awk '{print $1}')
limits=(--num-cpus "$SLURM_CPUS_PER_TASK" --num-gpus "${SLURM_GPUS_ON_NODE:-0}")

srun --nodes=1 --ntasks=1 -w "$head" \
    ray start --head --node-ip-address="$address" --port="$port" "${limits[@]}" --block &
until srun --overlap --nodes=1 --ntasks=1 -w "$head" ray health-check --address "$address:$port"; do sleep 2; done
if (( SLURM_JOB_NUM_NODES > 1 )); then
    others=$((SLURM_JOB_NUM_NODES - 1))
    srun --nodes="$others" --ntasks="$others" --exclude="$head" \
        ray start --address="$address:$port" "${limits[@]}" --block &
fi

srun --overlap --nodes=1 --ntasks=1 -w "$head" \
    bocb-tune run "$spec" --out "$run" --address "$address:$port" &
driver=$!

wait "$driver"
