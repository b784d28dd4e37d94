# 2 processes
env SCORE_STOPPED_CODE=75 PYTHONUNBUFFERED=1 JAX_PLATFORMS=cpu XLA_FLAGS=--xla_force_host_platform_device_count=4 SCORE_COORDINATOR=127.0.0.1:4321 SCORE_PROCESSES=2 SCORE_PROCESS=0 python \
  -m score_jax.main \
  --config=configs/stage2.py:gemma2_2b_math \
  --workdir=runs/gemma \
  '--config.task.instruction=Don'"'"'t: "$(HOME)" $X $$x$$ `a` # é\n' \
  --config.x= &
env SCORE_STOPPED_CODE=75 PYTHONUNBUFFERED=1 JAX_PLATFORMS=cpu XLA_FLAGS=--xla_force_host_platform_device_count=4 SCORE_COORDINATOR=127.0.0.1:4321 SCORE_PROCESSES=2 SCORE_PROCESS=1 python \
  -m score_jax.main \
  --config=configs/stage2.py:gemma2_2b_math \
  --workdir=runs/gemma \
  '--config.task.instruction=Don'"'"'t: "$(HOME)" $X $$x$$ `a` # é\n' \
  --config.x= &
wait
