# the code as committed; changes are listed, not sent
mkdir -p runs/launch
git status --short --untracked-files=no
git archive --format=tar.gz --output=runs/launch/score.tar.gz HEAD

# create v5p:4x4x4, 64 chips on 16 hosts
gcloud compute tpus queued-resources create score \
  --node-id=score \
  --accelerator-type=v5p-128 \
  --runtime-version=v2-alpha-tpuv5 \
  --zone=us-east5-a \
  --quiet

# until it is ACTIVE
gcloud compute tpus queued-resources describe score \
  --format='value(state.state)' \
  --zone=us-east5-a \
  --quiet

# the code and its packages, on every host
gcloud compute tpus tpu-vm scp runs/launch/score.tar.gz score: \
  --worker=all \
  --zone=us-east5-a \
  --quiet
gcloud compute tpus tpu-vm ssh score \
  --worker=all \
  --ssh-flag=-oServerAliveInterval=30 \
  --ssh-flag=-oServerAliveCountMax=6 \
  --command='mkdir -p score && tar -xzf score.tar.gz -C score && bash score/launch/host.sh setup score' \
  --zone=us-east5-a \
  --quiet

# the job, on every host
gcloud compute tpus tpu-vm ssh score \
  --worker=all \
  --ssh-flag=-oServerAliveInterval=30 \
  --ssh-flag=-oServerAliveCountMax=6 \
  --command='bash score/launch/host.sh run score 1 SCORE_STOPPED_CODE=75 PYTHONUNBUFFERED=1 SCORE_COORDINATOR=auto .venv/bin/python -m score_jax.main --config=configs/stage2.py:gemma2_2b_math --workdir=/mnt/bucket/gemma' \
  --zone=us-east5-a \
  --quiet

# when that ends with an error: is the slice READY?
gcloud compute tpus tpu-vm describe score \
  --format='value(state)' \
  --zone=us-east5-a \
  --quiet

# if it is not: delete it, and go on from "create" (3 times at most, 60 s apart)
gcloud compute tpus queued-resources delete score \
  --force \
  --zone=us-east5-a \
  --quiet

# when the launcher is told to stop
gcloud compute tpus tpu-vm ssh score \
  --worker=all \
  --ssh-flag=-oServerAliveInterval=30 \
  --ssh-flag=-oServerAliveCountMax=6 \
  --command='bash score/launch/host.sh stop score 60' \
  --zone=us-east5-a \
  --quiet

# at the end, whatever happened
gcloud compute tpus queued-resources delete score \
  --force \
  --zone=us-east5-a \
  --quiet
