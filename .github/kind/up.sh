#!/usr/bin/env bash
# A kind cluster with Calico, and a registry at localhost:5001 that its nodes pull from (kind's own recipe).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
: "${KIND_VERSION:?}" "${CALICO_VERSION:?}"
if ! command -v kind >/dev/null; then
  curl -fsSLo kind "https://kind.sigs.k8s.io/dl/$KIND_VERSION/kind-linux-amd64"
  sudo install kind /usr/local/bin/kind && rm kind
fi
docker inspect kind-registry >/dev/null 2>&1 ||
  docker run -d --restart=always -p 127.0.0.1:5001:5000 --name kind-registry registry:2
kind create cluster --name llava --config "$here/cluster.yaml"
docker network connect kind kind-registry 2>/dev/null || true
for node in $(kind get nodes --name llava); do
  docker exec "$node" mkdir -p /etc/containerd/certs.d/localhost:5001
  printf '[host."http://kind-registry:5000"]\n' |
    docker exec -i "$node" cp /dev/stdin /etc/containerd/certs.d/localhost:5001/hosts.toml
done
kubectl apply -f "https://raw.githubusercontent.com/projectcalico/calico/$CALICO_VERSION/manifests/calico.yaml"
kubectl -n kube-system rollout status daemonset/calico-node --timeout=300s
kubectl wait node --all --for condition=ready --timeout=300s
