#!/bin/bash
# A search on the nodes of a Slurm job:
#     sbatch launch/slurm.sh search kd --trials 256
# starts Ray on every node of the job, under a token of its own, and runs `kdsearch search kd --trials 256` on them.
# Before the time limit, or when it is preempted, the search is ended cleanly and the job goes back into the queue;
# started again, on whatever nodes, it goes on with the same run. launch/README.md says more.
#SBATCH --job-name=kdsearch
#SBATCH --ntasks-per-node=1
#SBATCH --requeue
#SBATCH --no-kill
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@300
# ---- Yours to fill in: from here … ----
#SBATCH --partition=gpu
#SBATCH --nodes=2
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=16
#SBATCH --mem=64G
#SBATCH --time=12:00:00
# Where the runs lie: a folder that all nodes see under this path.
storage=${KDSEARCH_STORAGE:-$HOME/kdsearch-runs}
# Where kdsearch and ray are, on all nodes: launch/local.sh makes .venv in the folder that sbatch is called from.
programs=${KDSEARCH_PROGRAMS:-$SLURM_SUBMIT_DIR/.venv/bin}
# Address of the job's first node; empty: the one of its default route. To be set where the others cannot reach that.
head_address=${KDSEARCH_HEAD_ADDRESS:-}
# NVIDIA MPS on the nodes: auto (where the search's trials share GPUs), or no.
mps=${KDSEARCH_MPS:-auto}
# ---- … to here ----
set -u

die() { # die STATUS SENTENCE
    echo "slurm.sh: $2" >&2
    exit "$1"
}

name_of_run() { # name_of_run ARGUMENT...: what --name says; empty where it is not given
    while [ $# -gt 0 ]; do
        case $1 in
            --name) echo "${2:-}" ;;
            --name=*) echo "${1#--name=}" ;;
        esac
        shift
    done | tail -n 1
}

shares_gpus() { # shares_gpus COMMAND ARGUMENT...: whether trials share GPUs, as the line says or the file that it names
    local share='' file=''
    [ "$1" != resume ] || file=$storage/${2:-}/experiment.yaml
    while [ $# -gt 0 ]; do
        case $1 in
            --gpus-per-trial=*) share=${1#*=} ;;
            --set=resources.gpus_per_trial=*) share=${1##*=} ;;
            --gpus-per-trial) share=${2:-} ;;
            --set) case ${2:-} in resources.gpus_per_trial=*) share=${2##*=} ;; esac ;;
            *.yaml | *.yml) file=${file:-$1} ;;
        esac
        shift
    done
    [ -n "$share" ] || share=$(sed -n 's/#.*//; s/.*gpus_per_trial: *\([a-z0-9.]*\).*/\1/p' "$file" 2>/dev/null)
    case $share in
        auto | 0.*[1-9]* | .*[1-9]*) return 0 ;;
        *) return 1 ;;
    esac
}

check() { # check ARGUMENT...: what can be known to be wrong before anything starts
    [ -n "${SLURM_JOB_ID:-}" ] || die 2 "this is a job for Slurm: sbatch launch/slurm.sh $*"
    case ${1:-} in
        search | resume) ;;
        *) die 2 "'${1:-}' is not what a job is for: sbatch launch/slurm.sh search METHOD …, or resume RUN" ;;
    esac
    for argument; do
        case $argument in
            --storage | --storage=* | --address | --address=*)
                die 2 "${argument%%=*} is set by this script: the storage in its marked block, the address by itself"
                ;;
        esac
    done
    [ -x "$programs/kdsearch" ] || die 2 "there is no kdsearch in $programs: run launch/local.sh methods there first"
    mkdir -p "$storage" || die 2 "the storage $storage cannot be made"
}

make_token() { # who can read it can use the cluster: the owner alone, on every node
    export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$storage/.slurm-$SLURM_JOB_ID.token
    unset RAY_AUTH_TOKEN
    (umask 077 && rm -f "$RAY_AUTH_TOKEN_PATH" &&
        "$programs/python" -c 'import secrets; print(secrets.token_hex(32), end="")' >"$RAY_AUTH_TOKEN_PATH") ||
        die 1 "the token cannot be written to $storage"
}

# On a node: Ray with the GPUs that Slurm gave us there; where they are shared and there are any, MPS around it. Its
# daemon, Ray and the trials know the GPUs by their own names: numbers would be counted anew by each of them.
# shellcheck disable=SC2016 # the node expands it: it may have other GPUs than this one
on_node='
    gpus=${SLURM_GPUS_ON_NODE:-0} node=$1
    shift
    mkdir -p "$RAY_TMPDIR"
    names() { nvidia-smi --query-gpu=uuid --format=csv,noheader ${CUDA_VISIBLE_DEVICES:+--id="$CUDA_VISIBLE_DEVICES"}; }
    if [ "$SHARE_GPUS" = no ] || [ "$gpus" = 0 ]; then
        exec "$@" --num-gpus="$gpus"
    fi
    if named=$(names); then
        CUDA_VISIBLE_DEVICES=$(echo "$named" | paste -s -d , -)
        CUDA_MPS_PIPE_DIRECTORY=/tmp/kdsearch-$SLURM_JOB_ID-$node
        CUDA_MPS_LOG_DIRECTORY=$RAY_TMPDIR
        export CUDA_VISIBLE_DEVICES CUDA_MPS_PIPE_DIRECTORY CUDA_MPS_LOG_DIRECTORY
        mkdir -p "$CUDA_MPS_PIPE_DIRECTORY"
    fi
    if [ -z "$named" ] || ! nvidia-cuda-mps-control -d; then
        echo "slurm.sh: no NVIDIA MPS on $node, trials share GPUs by turns"
        exec "$@" --num-gpus="$gpus"
    fi
    "$@" --num-gpus="$gpus" &
    ray=$!
    trap "kill -TERM $ray" TERM INT
    while kill -0 "$ray" 2>/dev/null; do
        wait "$ray"
    done
    echo quit | nvidia-cuda-mps-control
    rm -rf "$CUDA_MPS_PIPE_DIRECTORY"
'

start_node() { # start_node NODE WHAT...: Ray on one node, until it is told to end
    local node=$1
    shift
    srun --nodes=1 --ntasks=1 --nodelist="$node" --cpus-per-task="$cpus" --overlap --no-kill \
        sh -c "$on_node" sh "$node" "$programs/ray" start "$@" --num-cpus="$cpus" --block --disable-usage-stats \
        --dashboard-agent-listen-port=0 >"$logs/$node.log" 2>&1 &
    nodes+=($!)
}

start_cluster() {
    local hosts
    mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
    count=${#hosts[@]}
    [ "$count" -gt 0 ] || die 1 "scontrol names no hosts for ${SLURM_JOB_NODELIST:-no list of nodes}"
    # Ray's own answer: it would put the same in the place of a loopback address.
    [ -n "$head_address" ] ||
        head_address=$("$programs/python" -c 'import ray; print(ray.util.get_node_ip_address())') ||
        die 1 "the address of $(hostname) is not known: set head_address in the marked block"
    # Other jobs may have the same nodes: ports and folders go by the job. RAY_ADDRESS is what `--address auto` means,
    # and all that a run remembers of its cluster, which is another one after a requeue.
    export RAY_ADDRESS=$head_address:$((20000 + SLURM_JOB_ID % 6000))
    export RAY_TMPDIR=${RAY_TMPDIR:-/tmp/kdsearch-$SLURM_JOB_ID}
    logs=$storage/.slurm-$SLURM_JOB_ID.logs
    mkdir -p "$logs"
    start_node "${hosts[0]}" --head --node-ip-address="$head_address" --port="${RAY_ADDRESS##*:}" \
        --include-dashboard=false --ray-client-server-port=$((26000 + SLURM_JOB_ID % 6000))
    for host in "${hosts[@]:1}"; do
        start_node "$host" --address="$RAY_ADDRESS"
    done
}

await_cluster() { # until all nodes are there; in the background, as bash runs traps only between its own commands
    "$programs/python" - "$count" <<'END' &
import logging, sys, time
import ray
wanted, deadline = int(sys.argv[1]), time.monotonic() + 300
while True:
    try:
        ray.init(log_to_driver=False, logging_level=logging.CRITICAL)
        break
    except ConnectionError:
        if time.monotonic() > deadline:
            sys.exit("no Ray head answered within five minutes")
        time.sleep(1)
while (there := sum(node["Alive"] for node in ray.nodes())) < wanted:
    if time.monotonic() > deadline:
        sys.exit(f"only {there} of {wanted} nodes joined within five minutes")
    time.sleep(0.5)
END
    await $! KILL # there is nothing to end cleanly, and Ray is deaf while it looks for its head
}

# await PID SIGNAL: its status. It gets the signal when the job has to go (with a minute to spare), or Ray's head has gone
await() {
    local told=
    while kill -0 "$1" 2>/dev/null; do
        sleep 1 &
        wait $! # which a signal interrupts, unlike sleep
        if [ -n "$leaving" ] || ! kill -0 "${nodes[0]}" 2>/dev/null; then
            [ -n "$told" ] || kill -"$2" "$1" 2>/dev/null
            told=${told:-$SECONDS}
            [ "$SECONDS" -lt $((told + 240)) ] || kill -KILL "$1" 2>/dev/null
        fi
    done
    wait "$1"
}

run_search() { # run_search ARGUMENT...: the run of this job, begun or gone on with
    local run
    run=$(name_of_run "$@")
    export KDSEARCH_STORAGE=$storage
    if [ "$1" = search ]; then
        [ -n "$run" ] || set -- "$@" --name "${run:=slurm-$SLURM_JOB_ID}"
        if [ -e "$storage/$run" ]; then
            set -- resume "$run"
        else
            set -- "$@" --address auto
        fi
    fi
    echo "slurm.sh: kdsearch $*"
    "$programs/kdsearch" "$@" &
    await $! TERM
}

# shellcheck disable=SC2317 # the trap calls it too
end_cluster() { # only what this job started: `ray stop` would end other people's too
    [ ${#nodes[@]} -eq 0 ] || kill -TERM "${nodes[@]}" 2>/dev/null
    for node in "${nodes[@]}"; do
        for _ in {1..60}; do
            kill -0 "$node" 2>/dev/null || break
            sleep 0.5
        done
        kill -KILL "$node" 2>/dev/null
    done
    nodes=()
    rm -f "$RAY_AUTH_TOKEN_PATH"
}

requeue() { # unless Slurm is ending the job already: then it was cancelled, or is being requeued by Slurm itself
    if scontrol --oneliner show job "$SLURM_JOB_ID" | grep -q 'JobState=RUNNING'; then
        echo "slurm.sh: back into the queue"
        scontrol requeue "$SLURM_JOB_ID"
    fi
}

check "$@"
nodes=() leaving='' logs='' count=0
cpus=${SLURM_CPUS_PER_TASK:-${SLURM_CPUS_ON_NODE:-1}}
SHARE_GPUS=no
[ "$mps" = no ] || ! shares_gpus "$@" || SHARE_GPUS=yes
export SHARE_GPUS
trap 'leaving=yes' USR1 TERM
trap end_cluster EXIT
make_token
start_cluster
await_cluster || [ -n "$leaving" ] || die 1 "Ray did not start: $logs has a log a node"
status=0
[ -n "$leaving" ] || run_search "$@" || status=$?
end_cluster
[ -z "$leaving" ] || requeue
exit "$status"
