#!/usr/bin/env bash
# What each host of a TPU slice does for the launcher, from its home folder:
#
#   host.sh packages                  the packages, into .venv of this folder
#   host.sh setup NAME [COMMAND]      them, for the code in NAME; then a command
#   host.sh run NAME JOB WORD...      a job, to its end; returns its exit code
#   host.sh stop NAME SECONDS         ends the job that runs; kills it after that
#
# A job outlives the connection that started it. Asked again for the same JOB
# (a number), `run` follows the one that is there, and never starts it twice:
# gcloud repeats a command whose connection broke.
set -euo pipefail
export PATH="$HOME/.local/bin:$PATH"

packages() {
  command -v uv > /dev/null || python3 -m pip install --quiet --user uv
  test -x .venv/bin/python || uv venv --quiet --python 3.11 .venv
  export VIRTUAL_ENV=$PWD/.venv
  uv pip install --quiet --no-deps -r requirements.txt
  # TPU chips need the plugin of the same release.
  uv pip install --quiet "jax[tpu]==$(sed -n 's/^jax==\([^ ]*\).*/\1/p' requirements.txt)"
}

alive() {  # Whether a job runs: alive STATE
  test -e "$1.pid" && ! test -e "$1.exit" && kill -0 "$(cat "$1.pid")" 2> /dev/null
}

setup() {  # setup NAME [COMMAND]
  local state
  for state in "$HOME/$1".job.*.pid; do
    if alive "${state%.pid}"; then
      echo "$1: a job is running here already; end it first: host.sh stop $1 60"
      exit 1
    fi
  done
  rm -f "$HOME/$1".job.*
  cd "$HOME/$1"
  packages
  if test -n "${2-}"; then bash -c "$2"; fi
}

supervise() {  # supervise STATE WORD...: runs a job and notes how it ended
  local state=$1 code=0
  shift
  env "$@" > "$state.log" 2>&1 < /dev/null &
  echo $! > "$state.new" && mv "$state.new" "$state.pid"
  wait $! || code=$?
  echo "$code" > "$state.new" && mv "$state.new" "$state.exit"
}

run() {  # run NAME JOB WORD...
  local name=$1 state=$HOME/$1.job.$2 lines=+1
  shift 2
  if test -e "$state.pid"; then
    lines=20  # The rest was seen before the connection broke.
  elif (set -o noclobber && : > "$state.lock") 2> /dev/null; then
    # Of two at once, one makes that file, and starts it.
    (cd "$HOME/$name" && setsid bash launch/host.sh supervise "$state" "$@" > /dev/null 2>&1 &)
  fi
  until test -e "$state.pid"; do sleep 0.1; done
  tail --lines="$lines" --follow=name --pid="$(cat "$state.pid")" "$state.log" |
    sed --unbuffered "s/^/[${HOSTNAME##*-w-}] /"
  for _ in {1..50}; do
    if test -e "$state.exit"; then exit "$(cat "$state.exit")"; fi
    sleep 0.1
  done
  exit 137  # What should have noted its end was killed as well.
}

stop() {  # stop NAME SECONDS
  local state pid left
  for state in "$HOME/$1".job.*.pid; do
    if alive "${state%.pid}"; then
      pid=$(cat "$state")
      kill -TERM "$pid" || true
      for ((left = $2; left > 0; left--)); do
        if ! alive "${state%.pid}"; then exit 0; fi
        sleep 1
      done
      kill -KILL "$pid" || true
    fi
  done
}

case ${1-} in
  packages | setup | supervise | run | stop) "$@" ;;
  *) sed -n '2,/^set/ s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
esac
