#!/usr/bin/env bash
# W&B agents on this machine: one a GPU, or N that share the GPUs evenly (for rows of several devices); without GPUs N, or 1.
#     sweeps/agents.sh ENTITY/PROJECT/SWEEP [N]
# Ctrl-C or TERM: each run saves itself, and the sweep hands it out again to the next agent. Once more: without waiting.
set -uo pipefail
agents=()
sweep=${1:?usage: $0 ENTITY/PROJECT/SWEEP [N]}
gpus=($(python -c "from hbo.runs.cluster import visible_gpus; print(*visible_gpus())")) || exit
n=${2:-$((${#gpus[@]} ? ${#gpus[@]} : 1))}
share=$((${#gpus[@]} / n))
if ((${#gpus[@]} && !share)); then
    echo "$0: $n agents for ${#gpus[@]} GPUs; take ${#gpus[@]} or fewer" >&2
    exit 2
fi

# An agent gets TERM too if this script is killed, so that none works on unseen.
with_script=($(command -v setpriv > /dev/null && echo setpriv --pdeathsig TERM --))
trap 'stopping=1; kill -TERM $(jobs -p) 2> /dev/null' INT TERM HUP
set -m # each agent a process group of its own: Ctrl-C reaches this script alone, which tells them once
for ((i = 0; i < n && !${stopping:-0}; i++)); do
    if ((share)); then
        export CUDA_VISIBLE_DEVICES=$(IFS=, && echo "${gpus[*]:i * share:share}")
    fi
    "${with_script[@]}" wandb agent --forward-signals --term-timeout 240 "$sweep" < /dev/null &
    agents+=($!)
done
for agent in ${agents[@]+"${agents[@]}"}; do
    while kill -0 "$agent" 2> /dev/null; do # a trapped signal ends `wait`, not the agent
        wait "$agent"
    done
done
