#!/usr/bin/env bash
# A job on a TPU node pool of GKE, where JobSet is installed.
#
#   export IMAGE=us-docker.pkg.dev/PROJECT/REPOSITORY/malt_jax BUCKET=gs://my-bucket
#   launch/gke/run.sh push                                      # build the image and push it
#   launch/gke/run.sh run NAME --config=configs/gsm8k.py        # start the job
#   launch/gke/run.sh tail NAME                                 # follow the first pod's log
#   launch/gke/run.sh fetch NAME                                # report and results, to runs/NAME
#   launch/gke/run.sh delete NAME
#
# With --dry_run first, the manifest and every command are printed and none is run. More settings,
# from the environment: TOPOLOGY (2x4), HOSTS (1) and CHIPS (8), the machines of that topology and
# the chips of each; ACCOUNT (default), the Kubernetes service account.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

dry_run=false
if [[ "${1:-}" == --dry_run ]]; then
  dry_run=true
  shift
fi

run() {
  printf '+'
  printf ' %q' "$@"
  printf '\n'
  "$dry_run" || "$@"
}

json() { # a string as JSON, which is YAML
  local text=${1//\\/\\\\}
  printf '"%s"' "${text//\"/\\\"}"
}

command=${1:-} name=${2:-}
: "${IMAGE:?the image, as in IMAGE=us-docker.pkg.dev/PROJECT/REPOSITORY/malt_jax}"
if [[ $command == push ]]; then
  run docker build -f launch/Dockerfile -t "$IMAGE" .
  run docker push "$IMAGE"
  exit
fi
if [[ ! $name =~ ^[a-z][a-z0-9-]*$ ]]; then
  printf 'usage: launch/gke/run.sh [--dry_run] COMMAND NAME [flags of the job]; see its first lines\n' >&2
  exit 2
fi
shift 2
workdir=${BUCKET:?where results go, as in BUCKET=gs://my-bucket}/$name

# shellcheck disable=SC2016 # the names stand in the manifest as they are here
manifest() {
  local text args="" flag
  for flag in "$@" "--config.workdir=$workdir"; do
    args+="${args:+, }$(json "$flag")"
  done
  text=$(<launch/gke/jobset.yaml)
  text=${text//'${NAME}'/"$name"}
  text=${text//'${IMAGE}'/"$IMAGE"}
  text=${text//'${HOSTS}'/"${HOSTS:-1}"}
  text=${text//'${CHIPS}'/"${CHIPS:-8}"}
  text=${text//'${TOPOLOGY}'/"${TOPOLOGY:-2x4}"}
  text=${text//'${ACCOUNT}'/"${ACCOUNT:-default}"}
  printf '%s\n' "${text//'${ARGS}'/"[$args]"}"
}

case $command in
  run)
    "$dry_run" && manifest "$@"
    printf '+ kubectl apply -f - # the manifest\n'
    "$dry_run" || manifest "$@" | kubectl apply -f -
    ;;
  tail)
    run kubectl logs -f --tail=100 -l \
      "jobset.sigs.k8s.io/jobset-name=$name,batch.kubernetes.io/job-completion-index=0"
    ;;
  fetch)
    run mkdir -p "runs/$name"
    run gcloud storage cp --recursive "$workdir/report" "$workdir/eval" "$workdir/config.json" \
      "runs/$name/"
    ;;
  delete) run kubectl delete jobset "$name" ;;
  *)
    printf 'launch/gke/run.sh: no command %s; see its first lines\n' "$command" >&2
    exit 2
    ;;
esac
