# create the JobSet, for v6e:8x8, 64 chips on 16 hosts
mkdir -p runs/launch
cat > runs/launch/score.yaml << 'END'
apiVersion: "jobset.x-k8s.io/v1alpha2"
kind: "JobSet"
metadata:
  name: "score"
  namespace: "n"
  annotations:
    "alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"
spec:
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
          completions: 16
          parallelism: 16
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
              terminationGracePeriodSeconds: 25
              nodeSelector:
                cloud.google.com/gke-tpu-accelerator: "tpu-v6e-slice"
                cloud.google.com/gke-tpu-topology: "8x8"
                cloud.google.com/gke-spot: "true"
              tolerations:
                - key: "google.com/tpu"
                  operator: "Exists"
                  effect: "NoSchedule"
                - key: "cloud.google.com/gke-spot"
                  operator: "Exists"
                  effect: "NoSchedule"
              volumes:
                - name: "runs"
                  persistentVolumeClaim:
                    claimName: "shared"
              containers:
                - name: "score"
                  image: "us-docker.pkg.dev/p/r/score:1"
                  command:
                    - "python"
                    - "-m"
                    - "score_jax.main"
                    - "--config=configs/stage2.py:gemma2_2b_math"
                    - "--workdir=/mnt/bucket/gemma"
                    - "--config.task.instruction=Don't: \"$$(HOME)\" $$X $$$$x$$$$ `a` # \U000000e9\\n"
                    - "--config.x="
                  env:
                    - name: "SCORE_STOPPED_CODE"
                      value: "75"
                    - name: "PYTHONUNBUFFERED"
                      value: "1"
                    - name: "SCORE_COORDINATOR"
                      value: "auto"
                  ports:
                    - containerPort: 8471
                  volumeMounts:
                    - name: "runs"
                      mountPath: "/mnt/bucket"
                  resources:
                    limits:
                      google.com/tpu: 4
END
kubectl create --filename=runs/launch/score.yaml --namespace=n --context=c

# what its processes say
kubectl logs \
  --follow \
  --prefix \
  --tail=-1 \
  --max-log-requests=16 \
  --selector=jobset.sigs.k8s.io/jobset-name=score \
  --namespace=n \
  --context=c

# until it is Completed or Failed
kubectl get jobset score --output=json --namespace=n --context=c

# at the end, whatever happened
kubectl delete jobset score --ignore-not-found --namespace=n --context=c
