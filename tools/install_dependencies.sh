#!/usr/bin/env bash
# Finds out what the build is missing on a Debian-like system and installs it with apt-get where it may;
# otherwise prints the one line to run and stops. Installs nothing that is there already.
#
# usage: tools/install_dependencies.sh [--tests]
#   --tests   also what the test suite needs (cmocka; clang and libFuzzer for the fuzz targets)
set -euo pipefail

missing=()

# need PACKAGE COMMAND...: PACKAGE is missing unless COMMAND succeeds.
need() {
    local package=$1
    shift
    "$@" >/dev/null 2>&1 || missing+=("$package")
}

# Whether the C compiler finds a header; with no compiler yet, whether the file is where Debian puts it.
has_header() {
    if command -v cc >/dev/null; then
        echo "#include <$1>" | cc -E -x c - -o /dev/null
    else
        test -e "/usr/include/$1"
    fi
}

need gcc command -v cc
need libc6-dev has_header stdio.h
need cmake command -v cmake
need ninja-build command -v ninja
need pkg-config command -v pkg-config
need libdnnl-dev has_header dnnl.h
need libjansson-dev has_header jansson.h
need libxxhash-dev has_header xxhash.h
need libpcre2-dev test -e /usr/include/pcre2.h
need libutf8proc-dev has_header utf8proc.h
case "${1:-}" in
--tests)
    need g++ command -v g++
    need libcmocka-dev test -e /usr/include/cmocka.h
    need clang command -v clang
    need libclang-rt-14-dev sh -c 'ls /usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.fuzzer-*.a'
    ;;
"") ;;
*)
    echo "install_dependencies.sh: unknown option $1 (only --tests)" >&2
    exit 2
    ;;
esac

if [ ${#missing[@]} -eq 0 ]; then
    exit 0
fi
if ! command -v apt-get >/dev/null; then
    echo "install_dependencies.sh: missing, by their Debian names: ${missing[*]}" >&2
    exit 1
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if ! sudo -n true 2>/dev/null; then
        echo "Missing packages; please run: sudo apt-get install --no-install-recommends ${missing[*]}" >&2
        exit 1
    fi
    as_root=(sudo -n)
fi
echo "installing ${missing[*]}"
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
