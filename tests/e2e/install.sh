#!/bin/sh
# install.sh SOURCE_FOLDER BUILD_FOLDER: installs to a temporary prefix and uses the library from there:
# the header alone as strict C11 and C++, pkg-config shared and static, find_package from C++.
set -eu
source=$1
build=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cmake --install "$build" --prefix "$work/prefix" >/dev/null
lib=$(dirname "$(find "$work/prefix" -name libparallax.a)")
export PKG_CONFIG_PATH="$lib/pkgconfig"
consumer=$source/tests/e2e/consumer

echo '#include <parallax/parallax.h>' >"$work/header.c"
gcc -std=c11 -Wall -Wextra -pedantic -Werror -fsyntax-only -I"$work/prefix/include" "$work/header.c"
g++ -x c++ -std=c++11 -Wall -Wextra -pedantic -Werror -fsyntax-only -I"$work/prefix/include" "$work/header.c"

gcc -std=c11 $(pkg-config --cflags parallax) "$consumer/consumer.c" -o "$work/shared" $(pkg-config --libs parallax)
LD_LIBRARY_PATH=$lib "$work/shared"
gcc -std=c11 $(pkg-config --cflags parallax) "$consumer/consumer.c" -o "$work/static" \
    "$lib/libparallax.a" $(pkg-config --libs --static parallax | sed 's/-lparallax//')
"$work/static"

cmake -S "$consumer" -B "$work/cxx" -DCMAKE_PREFIX_PATH="$work/prefix" >/dev/null
cmake --build "$work/cxx" >/dev/null
"$work/cxx/consumer"
