#!/usr/bin/env bash
# A job on a Cloud TPU slice: one machine or many, on demand or spot.
#
#   export ZONE=us-west4-a BUCKET=gs://my-bucket
#   launch/tpu_vm.sh up NAME --config=configs/gsm8k.py          # all of the below, in order
#
#   launch/tpu_vm.sh create NAME                                # ask for the slice, wait for it
#   launch/tpu_vm.sh setup NAME                                 # this checkout on every worker
#   launch/tpu_vm.sh run NAME --config=configs/gsm8k.py         # start the job on every worker
#   launch/tpu_vm.sh watch NAME --config=configs/gsm8k.py       # wait; start again what was lost
#   launch/tpu_vm.sh tail NAME                                  # follow the first worker's log
#   launch/tpu_vm.sh fetch NAME                                 # report and results, to runs/NAME
#   launch/tpu_vm.sh delete NAME                                # give the slice back
#
# With --dry_run first, every command is printed and none is run. Settings, from the environment:
#   ZONE      where                                 BUCKET   gs://..., holds the work directories
#   TYPE      v5litepod-8: the slice                RUNTIME  v2-alpha-tpuv5-lite: its image
#   SPOT      true: cheaper, may be taken away      PROJECT  gcloud's own by default
#   PYTHON    python3.11                        POLL     30: seconds between looks
#   HF_TOKEN  the hub's token, where the model is gated: a file on the workers, on no command line
# The workers get the checkout as it is committed, and beside it the files in it that flags name.
# The work directory is $BUCKET/NAME, so a slice that was taken away costs what was in flight: a
# shard of trees, or the steps since the last checkpoint.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/named_files.bash

dry_run=false
if [[ "${1:-}" == --dry_run ]]; then
  dry_run=true
  shift
fi
if (($# < 2)) || [[ ! "$2" =~ ^[a-z][a-z0-9-]*$ ]]; then
  printf 'usage: launch/tpu_vm.sh [--dry_run] COMMAND NAME [flags of the job]; see its first lines\n' >&2
  exit 2
fi
command=$1 name=$2
shift 2
zone=${ZONE:?which zone, as in ZONE=us-west4-a}
bucket=${BUCKET:?where results go, as in BUCKET=gs://my-bucket}
type=${TYPE:-v5litepod-8}
runtime=${RUNTIME:-v2-alpha-tpuv5-lite}
python=${PYTHON:-python3.11}
where=(--zone="$zone")
[[ -z "${PROJECT:-}" ]] || where+=(--project="$PROJECT")
poll=${POLL:-30}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

run() {
  printf '+'
  printf ' %q' "$@"
  printf '\n'
  "$dry_run" || "$@"
}

quoted() { # words as any shell reads them; %q writes what only bash does
  local word escaped="'\\''"
  for word in "$@"; do
    printf " '%s'" "${word//\'/$escaped}"
  done
}

on_workers() { # on_workers all|NUMBER COMMAND
  run gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" --worker="$1" --command="$2"
}

state() { # of the queued resource: ACTIVE, SUSPENDED, FAILED, ..., MISSING, or UNKNOWN
  local describe=(gcloud compute tpus queued-resources describe "$name" "${where[@]}")
  "${describe[@]}" --format='value(state.state)' 2>/dev/null && return
  # Not every failure to ask means that it is gone.
  if [[ $("${describe[@]}" 2>&1) == *NOT_FOUND* ]]; then
    printf 'MISSING\n'
  else
    printf 'UNKNOWN\n'
  fi
}

create() {
  local tier=()
  [[ "${SPOT:-true}" != true ]] || tier=(--spot)
  run gcloud compute tpus queued-resources create "$name" "${where[@]}" --node-id="$name" \
    --accelerator-type="$type" --runtime-version="$runtime" "${tier[@]}"
  "$dry_run" && return
  local now
  until now=$(state) && [[ $now == ACTIVE ]]; do
    printf '%s: %s\n' "$name" "$now"
    if [[ $now == FAILED || $now == SUSPENDED ]]; then
      return 1
    fi
    sleep "$poll"
  done
}

to_workers() { # to_workers FILE NAME
  run gcloud compute tpus tpu-vm scp "$1" "$name:$2" "${where[@]}" --worker=all
}

check_files() { # fills the array `named` with what flags name beside the commit
  local path uncommitted=()
  named_files "$@"
  for path in "${named[@]}"; do
    if is_outside "$path"; then
      printf 'launch/tpu_vm.sh: %s: only this machine has it; copy it into the checkout and name it from there, as in data/FILE\n' "$path" >&2
      exit 2
    fi
    if ! git cat-file -e "HEAD:${path%/}" 2>/dev/null ||
      [[ -n $(git status --porcelain --ignored -- "$path") ]]; then
      uncommitted+=("$path")
    fi
  done
  named=("${uncommitted[@]}")
}

setup() {
  # What is committed here, without history; the tokenizer and weights come from model.path.
  local changes token=.cache/huggingface/token
  changes=$(git status --porcelain 2>/dev/null) || true
  [[ -z $changes ]] || printf 'not committed, and so not on the workers (unless a flag names it):\n%s\n' "$changes" >&2
  run git archive --format=tar.gz --output="$scratch/malt_jax.tar.gz" HEAD
  to_workers "$scratch/malt_jax.tar.gz" malt_jax.tar.gz
  on_workers all "mkdir -p malt_jax && tar -xzf malt_jax.tar.gz -C malt_jax &&
    cd malt_jax && $python -m venv .venv && .venv/bin/pip install -q -e '.[tpu,gcs]'"
  if [[ -z "${HF_TOKEN:-}" ]]; then
    printf 'HF_TOKEN is not set: the workers cannot read gated models, such as Llama, from the hub\n' >&2
    return
  fi
  # Where the hub's library looks, in a file that nobody else may read.
  (umask 077 && printf '%s' "$HF_TOKEN" >"$scratch/token")
  on_workers all "umask 077 && mkdir -p ${token%/*} && rm -f $token && touch $token"
  to_workers "$scratch/token" "$token"
}

carry() {
  # Files that flags name and the commit does not have.
  ((${#named[@]})) || return 0
  run tar -czf "$scratch/files.tar.gz" -- "${named[@]}"
  to_workers "$scratch/files.tar.gz" files.tar.gz
  on_workers all 'tar -xzf files.tar.gz -C malt_jax'
}

start() {
  # On every worker the same command: JAX finds the others by itself. It outlives the connection;
  # its exit status ends up in a file.
  local job
  job=".venv/bin/python -m malt_jax.main$(quoted "$@" "--config.workdir=$bucket/$name")"
  job=$(quoted "$job >> log 2>&1; echo \$? > status")
  on_workers all "cd malt_jax && rm -f status && nohup sh -c$job > /dev/null 2>&1 &"
}

watch() {
  # Until the job has ended well. Taken away: a new slice. Ended otherwise (a worker that died takes
  # the others along): started again, ten times at most. Status 1 is a setting that was refused.
  local now status restarts=0
  if "$dry_run"; then
    on_workers 0 'cat malt_jax/status'
    return
  fi
  while sleep "$poll"; do
    now=$(state)
    [[ $now != UNKNOWN ]] || continue
    if [[ $now != ACTIVE ]]; then
      printf '%s: %s; asking for a new slice\n' "$name" "$now"
      [[ $now == MISSING ]] || delete
      create
      setup
      carry
      start "$@"
      continue
    fi
    status=$(gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" --worker=0 \
      --command='cat malt_jax/status 2>/dev/null || echo running') || continue
    case $status in
      0) return ;;
      running) continue ;;
    esac
    restarts=$((restarts + 1))
    printf '%s: ended with status %s\n' "$name" "$status"
    if [[ $status == 1 ]] || ((restarts > 10)); then
      on_workers 0 'tail -n 20 malt_jax/log'
      return 1
    fi
    start "$@"
  done
}

fetch() {
  run mkdir -p "runs/$name"
  run gcloud storage cp --recursive "$bucket/$name/report" "$bucket/$name/eval" \
    "$bucket/$name/config.json" "runs/$name/"
  printf 'report: %s\n' "$PWD/runs/$name/report/index.html"
}

delete() {
  run gcloud compute tpus queued-resources delete "$name" "${where[@]}" --force --quiet
}

case $command in
  run | watch | up) check_files "$@" ;;
esac
case $command in
  create | setup | fetch | delete) "$command" ;;
  run)
    carry
    start "$@"
    ;;
  watch) watch "$@" ;;
  tail) on_workers 0 'tail -n 100 -f malt_jax/log' ;;
  up)
    create
    setup
    carry
    start "$@"
    watch "$@"
    fetch
    delete
    ;;
  *)
    printf 'launch/tpu_vm.sh: no command %s; see its first lines\n' "$command" >&2
    exit 2
    ;;
esac
