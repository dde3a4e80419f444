#!/usr/bin/env bash
# Fills a folder with the Debian packages that the host side of nanochat_dist needs where there is a
# GPU, nvcc and CMake but no network: launch/gpu_check.sh --deps DIR unpacks them there. At most 60
# MB; what such a machine has itself (a C compiler, CMake, CUDA) is left out.
#
#   launch/gpu_deps.sh DIR
set -euo pipefail

. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/shared.sh"
options 'DIR...' "$@"
[ ${#operands[@]} -eq 1 ] || usage 'needs one directory'

limit=$((60 * 1000 * 1000))
# What launch/install_deps.sh --build installs and what its programs load, compilers excepted.
packages='
ninja-build pkg-config pkgconf pkgconf-bin libpkgconf3
openmpi-bin openmpi-common libopenmpi-dev libopenmpi3 libhwloc15 libevent-core-2.1-7
libevent-pthreads-2.1-7 libpmix2 libmunge2 libucx0 libfabric1 libpsm-infinipath1 libpsm2-2 libibverbs1
librdmacm1 libnl-3-200 libnl-route-3-200 libltdl7 ocl-icd-libopencl1
libhdf5-dev libhdf5-103-1 libhdf5-hl-100 libaec0 libsz2 libcurl4 libnghttp2-14 librtmp1 libssh2-1
libpsl5 libldap-2.5-0 libsasl2-2 libbrotli1 libidn2-0 libunistring2 libgnutls30 libhogweed6 libnettle8
libp11-kit0 libtasn1-6 libffi8 libgmp10 libgssapi-krb5-2 libkrb5-3 libk5crypto3 libkrb5support0
libkeyutils1 libcom-err2
libiniparser-dev libiniparser1 libjansson-dev libjansson4 libssl-dev libssl3 zlib1g-dev zlib1g
libdnnl-dev libdnnl2 libgomp1
liblapacke-dev liblapacke liblapack3 libtmglib3 libopenblas-serial-dev libopenblas0-serial
libgfortran5 libquadmath0
libsentencepiece-dev libsentencepiece0 libprotobuf-lite32 libprotobuf32 libprotoc32
libprotobuf-c-dev libprotobuf-c1 protobuf-c-compiler
'

mkdir -p "$1"
cd "$1"
known=()
for package in $packages; do
    if apt-cache show "$package" >/dev/null 2>&1; then
        known+=("$package")
    else
        echo "gpu_deps: this system knows no package $package; left out" >&2
    fi
done
apt-get -q -o APT::Sandbox::User=root download "${known[@]}" >/dev/null
bytes=$(du -cb ./*.deb | tail -n 1 | cut -f 1)
echo "gpu_deps: $(find . -name '*.deb' | wc -l) packages, $((bytes / 1000000)) MB in $1"
if [ "$bytes" -gt "$limit" ]; then
    fail "more than the $((limit / 1000000)) MB that such a folder may have"
fi
