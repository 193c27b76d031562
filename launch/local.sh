#!/usr/bin/env bash
# The whole of MALT on this machine: a new environment, the package, the quickstart, its report.
#
#   launch/local.sh              run it (3 to 9 minutes on 2 cores, 1.4 GB)
#   launch/local.sh --dry_run    print the commands and run nothing
#
# PYTHON chooses the interpreter (3.11 or 3.12). Whatever else is given goes to the program:
#   launch/local.sh --config.credit.shuffle_rewards=True
# Started again, it continues where the last run stopped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

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

venv=.venv
workdir=runs/quickstart

# 1. An environment of its own, made once.
[[ -x $venv/bin/python ]] || run "${PYTHON:-python3.11}" -m venv "$venv"

# 2. The package with its dependencies; nothing here needs torch or an accelerator.
run "$venv/bin/pip" install -e .

# 3. Trees, values, one adapter a role, the evaluation of six systems, and the report.
run "$venv/bin/python" -m malt_jax.main --config=configs/quickstart.py \
  --config.workdir="$workdir" "$@"

# 4. Where to look.
printf 'report: %s\n' "$PWD/$workdir/report/index.html"
