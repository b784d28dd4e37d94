# the code as committed; changes are listed, not sent
mkdir -p runs/launch
git status --short --untracked-files=no
git archive --format=tar.gz --output=runs/launch/mine.tar.gz HEAD

# create v5e:2x4, 8 chips on 1 host
gcloud compute tpus tpu-vm create mine \
  --accelerator-type=v5litepod-8 \
  --version=tpu-ubuntu2204-base \
  --zone=us-west4-a \
  --quiet

# the code and its packages, on every host
gcloud compute tpus tpu-vm scp runs/launch/mine.tar.gz mine: \
  --worker=all \
  --zone=us-west4-a \
  --quiet
gcloud compute tpus tpu-vm ssh mine \
  --worker=all \
  --ssh-flag=-oServerAliveInterval=30 \
  --ssh-flag=-oServerAliveCountMax=6 \
  --command='mkdir -p mine && tar -xzf mine.tar.gz -C mine && bash mine/launch/host.sh setup mine' \
  --zone=us-west4-a \
  --quiet

# the job, on every host
gcloud compute tpus tpu-vm ssh mine \
  --worker=all \
  --ssh-flag=-oServerAliveInterval=30 \
  --ssh-flag=-oServerAliveCountMax=6 \
  --command='bash mine/launch/host.sh run mine 1 SCORE_STOPPED_CODE=75 PYTHONUNBUFFERED=1 .venv/bin/python -m score_jax.main --config=configs/stage2.py:gemma2_2b_math --workdir=/mnt/bucket/gemma' \
  --zone=us-west4-a \
  --quiet

# when that ends with an error: is the slice READY?
gcloud compute tpus tpu-vm describe mine \
  --format='value(state)' \
  --zone=us-west4-a \
  --quiet

# if it is not: delete it, and go on from "create" (20 times at most, 30 s apart)
gcloud compute tpus tpu-vm delete mine --zone=us-west4-a --quiet

# when the launcher is told to stop
gcloud compute tpus tpu-vm ssh mine \
  --worker=all \
  --ssh-flag=-oServerAliveInterval=30 \
  --ssh-flag=-oServerAliveCountMax=6 \
  --command='bash mine/launch/host.sh stop mine 60' \
  --zone=us-west4-a \
  --quiet
