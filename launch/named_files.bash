# shellcheck shell=bash
# Files of this machine that a job's flags name: a job elsewhere does not have them. For tpu_vm.sh
# and gke/run.sh, which source it.

# named_files FLAG...: fills the array `named` with the paths in the flags' values that exist here.
# A value may be a path, FILE.py:NAME, TASK:PATH, or a tuple of these.
named_files() {
  local flag value part path parts
  named=()
  for flag in "$@"; do
    # The scripts choose the work directory.
    if [[ $flag == --config.workdir=* ]]; then
      continue
    fi
    value=${flag#*=}
    IFS=, read -r -d '' -a parts < <(printf '%s\0' "${value//[()\[\]\"\' ]/}") || true
    for part in "$value" "${parts[@]}"; do
      if [[ $part == *://* ]]; then
        continue
      fi
      for path in "$part" "${part%%:*}" "${part##*:}"; do
        path=${path/#\~\//$HOME/}
        if [[ $path != . && -e $path && " ${named[*]} " != *" $path "* ]]; then
          named+=("$path")
        fi
      done
    done
  done
}

# is_outside PATH: whether a path leads out of the checkout.
is_outside() {
  [[ $1 == /* || /$1/ == */../* ]]
}
