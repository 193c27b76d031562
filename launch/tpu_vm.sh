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
# The work directory is $BUCKET/NAME, so a slice that was taken away costs what was in flight: a
# shard of trees, or the steps since the last checkpoint.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

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

run() {
  printf '+'
  printf ' %q' "$@"
  printf '\n'
  "$dry_run" || "$@"
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

setup() {
  # What is committed here, without history; the tokenizer and weights come from model.path.
  run git archive --format=tar.gz --output="/tmp/$name.tar.gz" HEAD
  run gcloud compute tpus tpu-vm scp "/tmp/$name.tar.gz" "$name:malt_jax.tar.gz" "${where[@]}" \
    --worker=all
  on_workers all "mkdir -p malt_jax && tar -xzf malt_jax.tar.gz -C malt_jax &&
    cd malt_jax && $python -m venv .venv && .venv/bin/pip install -q -e '.[tpu,gcs]'"
}

start() {
  # On every worker the same command: JAX finds the others by itself. It outlives the connection;
  # its exit status ends up in a file.
  local flags
  flags=$(printf ' %q' "$@" "--config.workdir=$bucket/$name")
  on_workers all "cd malt_jax && rm -f status && nohup sh -c '.venv/bin/python -m malt_jax.main${flags//\'/\'\\\'\'} >> log 2>&1; echo \$? > status' > /dev/null 2>&1 &"
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
  create | setup | fetch | delete) "$command" ;;
  run) start "$@" ;;
  watch) watch "$@" ;;
  tail) on_workers 0 'tail -n 100 -f malt_jax/log' ;;
  up)
    create
    setup
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
