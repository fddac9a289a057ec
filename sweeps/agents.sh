#!/usr/bin/env bash
# W&B agents on this machine: one a GPU, or N that share the GPUs evenly (for rows of several devices); without GPUs N, or 1.
#     sweeps/agents.sh [--runs_per_device R] ENTITY/PROJECT/SWEEP [N]
# With R, each GPU has R agents: networks that are too small to fill one.
# Ctrl-C or TERM: each run saves itself, and the sweep hands it out again to the next agent. Once more: without waiting.
set -uo pipefail
each=1
if [ "${1:-}" = --runs_per_device ]; then
    each=${2:?usage: $0 --runs_per_device R ENTITY/PROJECT/SWEEP [N]}
    shift 2
fi
sweep=${1:?usage: $0 [--runs_per_device R] ENTITY/PROJECT/SWEEP [N]}
gpus=($(python -c "from hbo.runs.cluster import visible_gpus; print(*visible_gpus())")) || exit
if ! [[ $each =~ ^[1-9][0-9]*$ && ${2:-1} =~ ^[1-9][0-9]*$ ]]; then
    echo "$0: --runs_per_device $each, N=${2:-}: must be whole numbers from 1" >&2
    exit 2
fi
n=${2:-$((${#gpus[@]} ? ${#gpus[@]} * each : each))}
share=$((${#gpus[@]} * each / n))
if ((each > 1 && !${#gpus[@]})); then
    echo "$0: --runs_per_device $each: there is no GPU here; use $sweep $each" >&2
    exit 2
fi
if ((${#gpus[@]} && !share)); then
    echo "$0: $n agents for ${#gpus[@]} GPUs; use ${#gpus[@]} or fewer, or --runs_per_device $(((n + ${#gpus[@]} - 1) / ${#gpus[@]}))" >&2
    exit 2
fi
if ((each > 1)); then
    export HBO_RUNS_PER_DEVICE=$each # the rows say so: plan reads times from rows of the same number
    share=1
fi
# A few runs that fail at first are no reason to leave the rest of a sweep; five are, and none finished.
export WANDB_AGENT_DISABLE_FLAPPING=${WANDB_AGENT_DISABLE_FLAPPING:-true}
agents=()

# An agent gets TERM too if this script is killed, so that none works on unseen.
with_script=($(command -v setpriv > /dev/null && echo setpriv --pdeathsig TERM --))
trap 'stopping=1; kill -TERM $(jobs -p) 2> /dev/null' INT TERM HUP
set -m # each agent a process group of its own: Ctrl-C reaches this script alone, which tells them once
for ((i = 0; i < n && !${stopping:-0}; i++)); do
    if ((share)); then # with R each GPU has one agent before any has two
        export CUDA_VISIBLE_DEVICES=$(IFS=, && echo "${gpus[*]:i * share % ${#gpus[@]}:share}")
    fi
    "${with_script[@]}" wandb agent --forward-signals --term-timeout 240 "$sweep" < /dev/null &
    agents+=($!)
done
for agent in ${agents[@]+"${agents[@]}"}; do
    while kill -0 "$agent" 2> /dev/null; do # a trapped signal ends `wait`, not the agent
        wait "$agent"
    done
done
