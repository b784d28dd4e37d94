# 1 process
env SCORE_STOPPED_CODE=75 PYTHONUNBUFFERED=1 python \
  -m score_jax.main \
  --config=configs/stage2.py:gemma2_2b_math \
  --workdir=runs/gemma &
wait
