#!/bin/sh
# Builds a real control plane (etcd, kube-apiserver, kube-controller-manager, kube-scheduler) and
# kwok from the modules that go.mod pins, into a folder outside the repository that is named
# after these versions, and there the small kubelet of kubelet/. What was built before is left
# as it is. The first time needs Go, some fifteen minutes on two cores and 3 GB.
#   build.sh           builds what is missing
#   build.sh --check   says by its status whether the control plane is there
#   build.sh --where   says where it is, or will be
set -eu
cd "$(dirname "$0")"
versions=$(cat go.mod go.sum | sha256sum | cut -c 1-12)
bin=${XDG_CACHE_HOME:-$HOME/.cache}/tunefleet/k8s/$versions
case "${1:-}" in
    --where) echo "$bin"; exit 0 ;;
    --check) [ -e "$bin/complete" ]; exit ;;
esac
command -v go >/dev/null || { echo "no Go 1.26: see https://go.dev/dl" >&2; exit 2; }
export CGO_ENABLED=0
mkdir -p "$bin"

build() {
    go build -trimpath -o "$bin/$1" -ldflags "-s -w $stamp" "$2"
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
    build kwok sigs.k8s.io/kwok/cmd/kwok
    touch "$bin/complete"
fi
stamp=""
build process-kubelet ./kubelet
