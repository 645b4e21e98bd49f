# The front door: `make demo` and `make test` do everything on a fresh machine. The build itself is CMake.
.PHONY: build test

build:
	cmake --preset default
	cmake --build --preset default

test: build
	ctest --preset default
