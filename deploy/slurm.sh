#!/bin/bash
# Renders manifests on a Slurm cluster: an array of workers, each of which leaves when nothing is left for it.
#
#     sbatch --array=0-7 slurm.sh cats.yaml dogs.yaml       # from a folder that all nodes share
#     WORKER_OPTIONS="--gpus none" sbatch --gpus=0 --mem=4G slurm.sh cats.yaml     # nodes without a GPU
#
# The task of the array that starts first leads: it submits the manifests and, unless IMAGEMILL_REDIS_URL names a Redis,
# runs one on its node, with its data in the shared folder. docs/deploy.md says what happens at a time limit, at a
# preemption and at the loss of a node.
#
# Variables, all optional; those that begin with IMAGEMILL_ are imagemill's own:
#   RUN_FOLDER      where Redis' data, its address (with a password, mode 0600) and the state of the run lie. Default:
#                   imagemill-ARRAY_JOB_ID in the folder of submission. All nodes must share it, and each array needs its
#                   own.
#   WORKER_OPTIONS  further options of imagemill-worker, split at blanks
#   IDLE_SECONDS    how long nothing must be left before a worker leaves. Default: 60.
#   MOST_RESTARTS   how often a task is put back into Slurm's queue by this script. Default: 100.
#SBATCH --job-name=imagemill
#SBATCH --array=0-3
#SBATCH --ntasks=1
#SBATCH --gpus=1
#SBATCH --cpus-per-task=4
#SBATCH --mem=24G
#SBATCH --time=04:00:00
#SBATCH --output=imagemill-%A_%a.log
#SBATCH --open-mode=append
# SIGTERM goes to the worker two minutes before the time limit: it gives its shard back, and this script goes on.
#SBATCH --signal=TERM@120
# After the loss of its node or a preemption, Slurm starts the task again.
#SBATCH --requeue

set -u
array=${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}
run=${RUN_FOLDER:-$PWD/imagemill-$array}
task=${SLURM_ARRAY_TASK_ID:-0}
# Not SLURM_JOB_ID: that of one task of an array is the number of the whole array.
me=$array${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}
try_again=75 # EX_TEMPFAIL
redis=
leads=

say() { echo "$(date -u +%FT%TZ) task $task: $*"; }

# One step of this task, on all its CPUs: since Slurm 22.05, srun does not take over --cpus-per-task by itself.
step() { srun --ntasks=1 ${SLURM_CPUS_PER_TASK:+"--cpus-per-task=$SLURM_CPUS_PER_TASK"} "$@"; }

stop_redis() {
    if [ -n "$redis" ]; then
        rm -f "$run/address"
        kill -TERM "$redis" 2>/dev/null
        wait "$redis" 2>/dev/null
        redis=
    fi
}

# SIGTERM to this shell is an scancel or a preemption: the task is not put back from here.
trap 'stop_redis; exit 143' TERM
trap stop_redis EXIT

# Ends this task; a worker that was told to leave, or found no Redis, is put back into Slurm's queue.
end() {
    local leads_redis=$redis
    stop_redis
    if [ "$1" = 143 ] || [ "$1" = $try_again ]; then
        if [ "${SLURM_RESTART_COUNT:-0}" -lt "${MOST_RESTARTS:-100}" ]; then
            say "status $1: back into the queue"
            scontrol requeue "$me" && sleep 60 && exit "$1"
        fi
    fi
    # Without this task there is no Redis, and tasks that start later must not wait for one.
    if [ -n "$leads_redis" ]; then echo "$1" >"$run/over"; fi
    exit "$1"
}

# Starts a Redis on this node, with the data of this run; prints its address.
start_redis() {
    local server port password host
    server=$(command -v redis-server || command -v valkey-server || python3 -c '
from producer.embedded_redis import find_binary
print(find_binary())') || { say "neither redis-server nor valkey-server is on the PATH"; return 1; }
    host=${REDIS_HOST:-$(hostname)}
    # It stays the same when this task is started again: on the same node, the others then just go on.
    [ -s "$run/password" ] || (umask 077 && od -An -tx1 -N16 /dev/urandom | tr -d ' \n' >"$run/password")
    password=$(cat "$run/password")
    mkdir -p "$run/redis"
    for port in $(seq $((20000 + SLURM_JOB_ID % 10000)) $((20009 + SLURM_JOB_ID % 10000))); do
        # The password is not in a command line, which every user of the node can read.
        "$server" - >"$run/redis.log" 2>&1 <<END &
port $port
bind * -::*
requirepass $password
dir $run/redis
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
END
        redis=$!
        url="redis://:$password@$host:$port/0"
        for _ in $(seq 150); do
            # One that does not live: its port is taken, or redis.log says what is wrong.
            kill -0 "$redis" 2>/dev/null || continue 2
            if IMAGEMILL_REDIS_URL=$url imagemill status >/dev/null 2>"$run/status.log"; then return 0; fi
            sleep 2
        done
        say "Redis runs, and $host:$port does not answer: $(cat "$run/status.log")"
        return 1
    done
    return 1
}

# Waits until no worker is left that uses the Redis of this task. A step, because SIGTERM goes to steps before the time
# limit: then the status is 143.
wait_for_others() {
    step sh -c "while imagemill status --json 2>/dev/null | grep -q '@[^\"]*\": {'; do sleep 5; done"
}

lead() {
    local status
    rm -f "$run/address"
    if [ -z "${IMAGEMILL_REDIS_URL:-}" ]; then
        # `over` for the tasks that follow: they would wait for an address.
        start_redis || { say "no Redis could be started: see $run/redis.log"; echo 2 >"$run/over"; end 2; }
        export IMAGEMILL_REDIS_URL=$url
    fi
    imagemill submit "$@"
    status=$?
    # A task that was started again finds its job in Redis; it is submitted again only if Redis' data was lost.
    if [ $status != 0 ] && ! [ -e "$run/submitted" ]; then
        say "the manifests were not submitted: status $status"
        echo $status >"$run/over"
        end $status
    fi
    touch "$run/submitted"
    (umask 077 && printf '%s\n' "$IMAGEMILL_REDIS_URL" >"$run/address.new") && mv "$run/address.new" "$run/address"
}

follow() {
    local waited=0
    until [ -s "$run/address" ]; do
        if [ -s "$run/over" ]; then exit "$(cat "$run/over")"; fi
        if [ $waited -ge 1800 ]; then say "no address of a Redis in $run"; end $try_again; fi
        sleep 2
        waited=$((waited + 2))
    done
    IMAGEMILL_REDIS_URL=$(cat "$run/address")
    export IMAGEMILL_REDIS_URL
}

if [ $# = 0 ]; then
    say "name a manifest: sbatch $0 cats.yaml"
    exit 2
fi
for program in imagemill imagemill-worker; do
    if ! command -v $program >/dev/null; then
        say "$program is not on the PATH of $(hostname): activate its environment before sbatch, or here"
        exit 2
    fi
done
mkdir -p -m 700 "$run" || exit 2
# That another array's run is over says nothing of this one. A link appears with its contents, on a file server too.
echo "$array" >"$run/array.$task" && ln "$run/array.$task" "$run/array" 2>/dev/null
rm -f "$run/array.$task"
if [ "$(cat "$run/array")" != "$array" ]; then
    say "RUN_FOLDER=$run is that of array $(cat "$run/array"): name another folder"
    exit 2
fi
if [ -s "$run/over" ]; then exit "$(cat "$run/over")"; fi
# The task that makes the file leads, also after this task was started again.
if (set -o noclobber; echo "$task" >"$run/leader") 2>/dev/null || [ "$(cat "$run/leader")" = "$task" ]; then
    leads=yes
    lead "$@"
else
    follow
fi

# shellcheck disable=SC2086 # the options are split on purpose
step imagemill-worker --name "$array-$task" \
    --until-idle "${IDLE_SECONDS:-60}" --redis-patience 300 ${WORKER_OPTIONS:-}
status=$?
say "the worker left with status $status"
if [ -n "$leads" ]; then
    if [ $status = 0 ]; then echo 0 >"$run/over"; fi
    # Those who still render need the Redis of this task, unless its time is over.
    case $status in
        143 | $try_again) ;;
        *) if [ -n "$redis" ]; then
               wait_for_others
               if [ $? = 143 ]; then status=143; fi
           fi ;;
    esac
fi
end $status
