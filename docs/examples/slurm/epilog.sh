#!/bin/sh
# Epilog= of slurm.conf, as root on each node: what the job's processes have left is written, and the daemon of a user
# who has no other job here is stopped. What cannot be written stays in the user's journals, for the next job.
PATH=${TBXD_BIN:-/opt/tbxd/bin}:$PATH
runuser -u "$SLURM_JOB_USER" -- timeout 60 tbxd drain >/dev/null
others=$(squeue --noheader --user "$SLURM_JOB_USER" --nodelist "${SLURMD_NODENAME:-$(hostname -s)}" --states R --format %A |
    grep -cvx "$SLURM_JOB_ID")
[ "$others" -gt 0 ] || systemctl stop "tbxd@$SLURM_JOB_USER.service"
exit 0
