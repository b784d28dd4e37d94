# create the JobSet, for v5e:2x4, 8 chips on 1 host
mkdir -p runs/launch
cat > runs/launch/score.yaml << 'END'
apiVersion: "jobset.x-k8s.io/v1alpha2"
kind: "JobSet"
metadata:
  name: "score"
  namespace: "default"
  annotations:
    "alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"
spec:
  ttlSecondsAfterFinished: 86400
  failurePolicy:
    maxRestarts: 20
    rules:
      - name: "OwnFault"
        action: "FailJobSet"
        onJobFailureReasons:
          - "PodFailurePolicy"
  replicatedJobs:
    - name: "slice"
      replicas: 1
      template:
        spec:
          completions: 1
          parallelism: 1
          completionMode: "Indexed"
          backoffLimit: 0
          podFailurePolicy:
            rules:
              - action: "Count"
                onPodConditions:
                  - type: "DisruptionTarget"
                    status: "True"
              - action: "FailJob"
                onExitCodes:
                  containerName: "score"
                  operator: "NotIn"
                  values:
                    - 75
                    - 134
                    - 137
                    - 143
          template:
            spec:
              restartPolicy: "Never"
              terminationGracePeriodSeconds: 60
              nodeSelector:
                cloud.google.com/gke-tpu-accelerator: "tpu-v5-lite-podslice"
                cloud.google.com/gke-tpu-topology: "2x4"
              tolerations:
                - key: "google.com/tpu"
                  operator: "Exists"
                  effect: "NoSchedule"
              containers:
                - name: "score"
                  image: "score"
                  command:
                    - "bash"
                    - "-c"
                    - "echo \"$$(hostname)\" && exec \"$$@\""
                    - "bash"
                    - "python"
                    - "-m"
                    - "score_jax.main"
                    - "--config=configs/stage2.py:gemma2_2b_math"
                    - "--workdir=runs/gemma"
                    - "--config.checkpoint.folder=gs://b/gemma"
                  env:
                    - name: "SCORE_STOPPED_CODE"
                      value: "75"
                    - name: "PYTHONUNBUFFERED"
                      value: "1"
                  ports:
                    - containerPort: 8471
                  resources:
                    limits:
                      google.com/tpu: 8
END
kubectl create --filename=runs/launch/score.yaml --namespace=default
