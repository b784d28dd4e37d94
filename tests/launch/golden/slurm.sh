# submit
mkdir -p runs/launch
sbatch \
  --parsable \
  --job-name=score \
  --nodes=4 \
  --ntasks-per-node=8 \
  --gpus-per-node=8 \
  --partition=long \
  --account=a \
  --time=2-00:00:00 \
  --requeue \
  --open-mode=append \
  --output=runs/launch/score-%j.log \
  --signal=TERM@300 \
  launch/slurm.sh 20 300 env SCORE_STOPPED_CODE=75 PYTHONUNBUFFERED=1 SCORE_COORDINATOR=auto python \
  -m score_jax.main \
  --config=configs/stage2.py:gemma2_2b_math \
  --workdir=runs/gemma \
  '--config.task.instruction=Don'"'"'t: "$(HOME)" $X $$x$$ `a` # é\n' \
  --config.x=

# until it ends
scontrol show job --oneliner ID

# when the launcher is told to stop: save, and end
scontrol update JobId=ID Requeue=0
scancel --signal=TERM ID
scontrol show job --oneliner ID
scancel ID
