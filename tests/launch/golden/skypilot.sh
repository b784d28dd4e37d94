# submit; SkyPilot starts it again itself, whatever --retries is
mkdir -p runs/launch
cat > runs/launch/score.yaml << 'END'
name: "score"
workdir: "."
resources:
  infra: "gcp/us-west4"
  accelerators: "tpu-v5litepod-16"
  accelerator_args:
    runtime_version: "v2-alpha-tpuv5-lite"
  use_spot: true
  job_recovery:
    max_restarts_on_errors: 0
    recover_on_exit_codes:
      - 75
      - 134
      - 137
      - 143
envs:
  SCORE_STOPPED_CODE: "75"
  PYTHONUNBUFFERED: "1"
  SCORE_COORDINATOR: "auto"
setup: "bash launch/host.sh packages"
run: "exec .venv/bin/python -m score_jax.main --config=configs/stage2.py:gemma2_2b_math --workdir=/mnt/bucket/gemma '--config.task.instruction=Don'\"'\"'t: \"$(HOME)\" $X $$x$$ `a` # \U000000e9\\n' --config.x="
END
sky jobs launch --yes --detach-run --name=score runs/launch/score.yaml

# until it ends
sky jobs logs --follow ID

# when the launcher is told to stop
sky jobs cancel --yes ID
