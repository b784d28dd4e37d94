#!/usr/bin/env bash
# The batch script of the launcher: runs a job on all nodes of an allocation.
#
#   slurm.sh RETRIES GRACE WORD...    the job's command and its arguments
#
# A job that was stopped before the end (exit code 75), or was killed, is queued
# again by its own script, RETRIES times at most; Slurm itself does so when it
# takes the nodes away or loses one.
set -u
retries=$1 grace=$2 code=0
shift 2

# One process that ends must leave the others the time to save.
srun --kill-on-bad-exit=0 --wait="$grace" "$@" || code=$?
case $code in
  75 | 134 | 137 | 143)
    if [ "${SLURM_RESTART_COUNT:-0}" -lt "$retries" ]; then
      echo "exit code $code: to be queued again"
      scontrol requeue "$SLURM_JOB_ID" || true
    fi
    ;;
esac
exit "$code"
