#!/usr/bin/env bash
# W&B agents on this machine: one a GPU, or N that share the GPUs evenly (for rows of several devices); without GPUs N, or 1.
#     sweeps/agents.sh ENTITY/PROJECT/SWEEP [N]
# Ctrl-C or TERM: each run saves itself, and the sweep hands it out again to the next agent. Once more: without waiting.
set -uo pipefail
sweep=${1:?usage: $0 ENTITY/PROJECT/SWEEP [N]}
gpus=($(nvidia-smi --query-gpu=index --format=csv,noheader 2> /dev/null | grep -x "[0-9]*"))
if [ -n "${CUDA_VISIBLE_DEVICES:-}" ]; then # fewer are ours
    IFS=, read -ra gpus <<< "$CUDA_VISIBLE_DEVICES"
fi
n=${2:-$((${#gpus[@]} ? ${#gpus[@]} : 1))}
share=$((${#gpus[@]} / n))
if ((${#gpus[@]} && !share)); then
    echo "$0: $n agents for ${#gpus[@]} GPUs; take ${#gpus[@]} or fewer" >&2
    exit 2
fi

set -m # each agent a process group of its own: Ctrl-C reaches this script alone, which tells them once
for ((i = 0; i < n; i++)); do
    if ((share)); then
        export CUDA_VISIBLE_DEVICES=$(IFS=, && echo "${gpus[*]:i * share:share}")
    fi
    wandb agent --forward-signals --term-timeout 240 "$sweep" < /dev/null &
    agents+=($!)
done
trap 'kill -TERM "${agents[@]}" 2> /dev/null' INT TERM HUP
for agent in "${agents[@]}"; do
    while kill -0 "$agent" 2> /dev/null; do # a trapped signal ends `wait`, not the agent
        wait "$agent"
    done
done
