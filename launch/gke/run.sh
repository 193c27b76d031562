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
# the chips of each; ACCOUNT (default), the Kubernetes service account; HF_TOKEN, the hub's token,
# where the model is gated: it becomes the Kubernetes secret NAME-hub. The image holds malt_jax/,
# configs/ and third_party/ of the checkout as they are, committed or not.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source launch/named_files.bash

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

json() { # a string as JSON on one line, of which YAML reads every character as it is
  local LC_ALL=C text=${1//\\/\\\\} code hex character
  text=${text//\"/\\\"}
  for code in {1..31} 127; do
    printf -v hex '%02x' "$code"
    printf -v character '%b' "\\x$hex"
    text=${text//"$character"/\\u00$hex}
  done
  # Line breaks and control characters beyond ASCII.
  for code in {128..159}; do
    printf -v hex '%02x' "$code"
    printf -v character '%b' "\\xc2\\x$hex"
    text=${text//"$character"/\\u00$hex}
  done
  text=${text//$'\xe2\x80\xa8'/\\u2028}
  text=${text//$'\xe2\x80\xa9'/\\u2029}
  printf '"%s"' "${text//$'\xef\xbb\xbf'/\\ufeff}"
}

argument() { # a flag as Kubernetes is told it: there $$ is $, and $(NAME) a variable
  local text="" rest=$1
  while [[ $rest == *'$'* ]]; do
    text+=${rest%%'$'*}'$'
    rest=${rest#*'$'}
    [[ $rest != [\$\(]* ]] || text+='$'
  done
  json "$text$rest"
}

check_files() { # refuses flags that name files which the image does not have
  local path named=()
  named_files "$@"
  for path in "${named[@]}"; do
    if is_outside "$path" || [[ ! $path =~ ^(malt_jax|configs|third_party)(/|$) ]]; then
      printf 'launch/gke/run.sh: %s: only this machine has it; copy it into configs/, name it from there and push the image again (trees and adapters may lie in a bucket: gs://...)\n' "$path" >&2
      exit 2
    fi
  done
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
    args+="${args:+, }$(argument "$flag")"
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

secret() {
  # From a pipe: command lines and logs are read by others.
  if [[ -z "${HF_TOKEN:-}" ]]; then
    printf 'HF_TOKEN is not set: the pods cannot read gated models, such as Llama, from the hub\n' >&2
    return
  fi
  run kubectl delete secret "$name-hub" --ignore-not-found
  run kubectl create secret generic "$name-hub" --from-file=token=/dev/stdin \
    < <(printf '%s' "$HF_TOKEN")
}

case $command in
  run)
    check_files "$@"
    "$dry_run" && manifest "$@"
    secret
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
  delete)
    run kubectl delete jobset "$name"
    run kubectl delete secret "$name-hub" --ignore-not-found
    ;;
  *)
    printf 'launch/gke/run.sh: no command %s; see its first lines\n' "$command" >&2
    exit 2
    ;;
esac
