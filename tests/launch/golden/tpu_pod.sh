# the code as committed; changes are listed, not sent
mkdir -p runs/launch
git status --short --untracked-files=no
git archive --format=tar.gz --output=runs/launch/score.tar.gz HEAD

# create v5e:4x4, 16 chips on 4 hosts
gcloud compute tpus tpu-vm create score \
  --accelerator-type=v5litepod-16 \
  --version=v2-alpha-tpuv5-lite \
  --spot \
  --zone=us-west4-a \
  --project=p \
  --quiet

# the code and its packages, on every host
gcloud compute tpus tpu-vm scp runs/launch/score.tar.gz score: \
  --worker=all \
  --zone=us-west4-a \
  --project=p \
  --quiet
gcloud compute tpus tpu-vm ssh score \
  --worker=all \
  --ssh-flag=-oServerAliveInterval=30 \
  --ssh-flag=-oServerAliveCountMax=6 \
  --command='mkdir -p score && tar -xzf score.tar.gz -C score && bash score/launch/host.sh setup score '"'"'make sandbox'"'"'' \
  --zone=us-west4-a \
  --project=p \
  --quiet

# the job, on every host
gcloud compute tpus tpu-vm ssh score \
  --worker=all \
  --ssh-flag=-oServerAliveInterval=30 \
  --ssh-flag=-oServerAliveCountMax=6 \
  --command='bash score/launch/host.sh run score 1 SCORE_STOPPED_CODE=75 PYTHONUNBUFFERED=1 SCORE_COORDINATOR=auto .venv/bin/python -m score_jax.main --config=configs/stage2.py:gemma2_2b_math --workdir=/mnt/bucket/gemma '"'"'--config.task.instruction=Don'"'"'"'"'"'"'"'"'t: "$(HOME)" $X $$x$$ `a` # é\n'"'"' --config.x=' \
  --zone=us-west4-a \
  --project=p \
  --quiet

# when that ends with an error: is the slice READY?
gcloud compute tpus tpu-vm describe score \
  --format='value(state)' \
  --zone=us-west4-a \
  --project=p \
  --quiet

# if it is not: delete it, and go on from "create" (20 times at most, 30 s apart)
gcloud compute tpus tpu-vm delete score --zone=us-west4-a --project=p --quiet

# when the launcher is told to stop
gcloud compute tpus tpu-vm ssh score \
  --worker=all \
  --ssh-flag=-oServerAliveInterval=30 \
  --ssh-flag=-oServerAliveCountMax=6 \
  --command='bash score/launch/host.sh stop score 60' \
  --zone=us-west4-a \
  --project=p \
  --quiet

# at the end, whatever happened
gcloud compute tpus tpu-vm delete score --zone=us-west4-a --project=p --quiet
