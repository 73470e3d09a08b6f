#!/bin/sh
# Prolog= of slurm.conf, as root on each node of a job: the user's daemon runs outside of the job, so the end of the job
# does not end it. Needs `tbxd service install --system`. A node whose prolog fails is drained; logging is no reason.
systemctl start --no-block "tbxd@$SLURM_JOB_USER.service"
exit 0
