#!/bin/bash
# Two machines with four GPUs each: sbatch slurm.sh run.yaml runs/first
# A job that is pre-empted is put into the queue again and goes on where it stopped; one that ran out of time goes on
# when it is submitted again.
#SBATCH --job-name=tutored
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -eu

main=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export OMP_NUM_THREADS=1

# One torchrun a machine; each starts a process for each of its GPUs. If one ends, all do.
srun --kill-on-bad-exit=1 torchrun \
    --nnodes "$SLURM_NNODES" --nproc-per-node 4 \
    --rdzv-backend c10d --rdzv-endpoint "$main:29500" --rdzv-id "$SLURM_JOB_ID" \
    -m tutored train "$1" --out "$2" --resume
