#!/bin/sh
# Builds a real control plane (etcd, kube-apiserver, kube-controller-manager, kube-scheduler) from
# the modules that go.mod pins, KubeRay's operator from those of kuberay/go.mod, and the small
# kubelet of kubelet/, into a folder outside the repository that is named after these versions.
# What was built before is left as it is. The first time needs Go, some twenty minutes on two
# cores and 4 GB.
#   build.sh           builds what is missing
#   build.sh --check   says by its status whether the control plane is there
#   build.sh --where   says where it is, or will be
set -eu
cd "$(dirname "$0")"
versions=$(cat go.mod go.sum kuberay/go.mod kuberay/go.sum | sha256sum | cut -c 1-12)
bin=${XDG_CACHE_HOME:-$HOME/.cache}/tunefleet/k8s/$versions
case "${1:-}" in
    --where) echo "$bin"; exit 0 ;;
    --check) [ -e "$bin/complete" ]; exit ;;
esac
command -v go >/dev/null || { echo "no Go 1.26: see https://go.dev/dl" >&2; exit 2; }
export CGO_ENABLED=0
mkdir -p "$bin"

# What is there is whole: it comes under its name only once it is built.
build() {
    [ -e "$bin/$1" ] && return
    go build -trimpath -o "$bin/$1.new" -ldflags "-s -w $stamp" "$2"
    mv "$bin/$1.new" "$bin/$1"
}

if [ ! -e "$bin/complete" ]; then
    version=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
    minor=${version#v1.}
    to=k8s.io/component-base/version
    stamp="-X $to.gitVersion=$version -X $to.gitMajor=1 -X $to.gitMinor=${minor%%.*}"
    echo "building Kubernetes $version in $bin" >&2
    build etcd go.etcd.io/etcd/server/v3
    for part in kube-apiserver kube-controller-manager kube-scheduler; do
        build "$part" "k8s.io/kubernetes/cmd/$part"
    done
    cd kuberay
    stamp=""
    build ray-operator github.com/ray-project/kuberay/ray-operator
    kuberay=$(go list -m -f '{{.Dir}}' github.com/ray-project/kuberay/ray-operator)
    cat "$kuberay"/config/crd/bases/*.yaml >"$bin/kuberay-crds.yaml"
    cd ..
    touch "$bin/complete"
fi
# Go's own cache knows whether this one has changed.
stamp=""
rm -f "$bin/process-kubelet"
build process-kubelet ./kubelet
