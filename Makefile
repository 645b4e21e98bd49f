# The front door: `make demo` and `make test` do everything on a fresh machine. The build itself is CMake.
.PHONY: build demo test test-asan test-long bench install format format-check clean

build:
	tools/install_dependencies.sh
	cmake --preset default -DPLX_TESTS=OFF
	cmake --build --preset default

# DATA="files or folders" trains on these instead of the C headers under /usr/include.
demo:
	@tools/demo.sh $(DATA)

test:
	tools/install_dependencies.sh --tests
	cmake --preset default -DPLX_TESTS=ON
	cmake --build --preset default
	ctest --preset default

test-long:
	tools/install_dependencies.sh --tests
	cmake --preset default -DPLX_TESTS=ON
	cmake --build --preset default
	ctest --preset long

test-asan:
	tools/install_dependencies.sh --tests
	cmake --preset asan
	cmake --build --preset asan
	ctest --preset asan

bench: build
	build/parallax bench attention
	build/parallax bench step

# PREFIX and DESTDIR as usual.
PREFIX ?= /usr/local
install: build
	DESTDIR=$(DESTDIR) cmake --install build --prefix $(PREFIX)

SOURCES = $(shell git ls-files '*.c' '*.h')
format:
	clang-format -i $(SOURCES)

format-check:
	clang-format --dry-run --Werror $(SOURCES)

clean:
	rm -rf build build-asan
