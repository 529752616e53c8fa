#!/usr/bin/env bash
# install.sh build|test|demo|bench [ceph]
# Installs the Debian packages that a make target needs and that are not there yet, and says which. Root, or sudo.
set -euo pipefail

build=(build-essential clang libclang-dev pkg-config protobuf-compiler libprotobuf-dev)
mounts=(e2fsprogs fuse3 mount util-linux xfsprogs)
clients=(fio libnbd-bin qemu-utils)
network=(iproute2 iptables)
postgres=(postgresql)
mariadb=(mariadb-server)
sysbench=(sysbench)
# fio has its engine for RBD in Debian's package; ceph-mgr-modules-core is what the manager does not start without.
ceph=(ceph-mon ceph-osd ceph-mgr ceph-mgr-modules-core ceph-common qemu-system-common qemu-block-extra)

target=${1:-}
case "$target" in
build) wanted=("${build[@]}") ;;
test) wanted=("${build[@]}" "${mounts[@]}" "${clients[@]}" "${network[@]}" "${postgres[@]}" "${mariadb[@]}") ;;
demo) wanted=("${build[@]}" "${mounts[@]}" "${mariadb[@]}" "${sysbench[@]}") ;;
bench)
    wanted=("${build[@]}" "${mounts[@]}" "${clients[@]}" "${postgres[@]}" "${mariadb[@]}" "${sysbench[@]}")
    case "${2:-}" in
    "") ;;
    ceph) wanted+=("${ceph[@]}") ;;
    *) echo "the peers that can be installed are: ceph" >&2; exit 2 ;;
    esac
    ;;
*)
    sed -n '2,3p' "$0"
    exit 2
    ;;
esac

if ! command -v cargo >/dev/null; then
    echo "cargo is missing: install stable Rust (1.90 or newer) with rustup, see README.md" >&2
    exit 1
fi

# The conformance suite of CSI is a Go program. Any Go from 1.21 on fetches the one that the suite asks for.
if [ "$target" = test ] && ! command -v go >/dev/null; then
    wanted+=(golang-go)
fi

missing=()
for package in "${wanted[@]}"; do
    state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$state" = installed ] || missing+=("$package")
done
check_go() {
    [ "$target" != test ] || (cd "$(dirname "$0")/../tests/sanity" && go version >/dev/null) || {
        echo "Go is missing or too old for tests/sanity/go.mod (csi-sanity): install it from https://go.dev/dl" >&2
        exit 1
    }
}
if [ ${#missing[@]} -eq 0 ]; then
    check_go
    exit 0
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || { echo "not root and no sudo: install these yourself: ${missing[*]}" >&2; exit 1; }
    as_root=(sudo)
fi

# The database server that Debian starts by itself on installation is not wanted: the demo runs its own.
policy=/usr/sbin/policy-rc.d
made_policy=
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
    "${as_root[@]}" chmod 755 "$policy"
    made_policy=yes
fi
restore() { [ -z "$made_policy" ] || "${as_root[@]}" rm -f "$policy"; }
trap restore EXIT

echo "installing Debian packages: ${missing[*]}"
log=$(mktemp)
export DEBIAN_FRONTEND=noninteractive
if ! { "${as_root[@]}" apt-get update -q && "${as_root[@]}" apt-get install -y -q --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    rm -f "$log"
    exit 1
fi
rm -f "$log"
check_go
