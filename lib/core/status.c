/* status.c: names and texts of the statuses, the version and the build line.
 *
 * All come from the one list in the public header, so a status cannot lack a name or a text. */
#include "parallax/parallax.h"
#include "build_info.h"

const char *plx_status_name(plx_status status)
{
    switch ((int)status) {
#define STATUS_NAME(name, value, text)                                                             \
    case value:                                                                                    \
        return #name;
        PLX_STATUS_LIST(STATUS_NAME)
#undef STATUS_NAME
    }
    return "PLX_UNKNOWN";
}

const char *plx_status_text(plx_status status)
{
    switch ((int)status) {
#define STATUS_TEXT(name, value, text)                                                             \
    case value:                                                                                    \
        return text;
        PLX_STATUS_LIST(STATUS_TEXT)
#undef STATUS_TEXT
    }
    return "a value that is not a status";
}

int plx_version(void)
{
    return PLX_VERSION_MAJOR * 10000 + PLX_VERSION_MINOR * 100 + PLX_VERSION_PATCH;
}

#define STATUS_QUOTE(value)  STATUS_QUOTE2(value)
#define STATUS_QUOTE2(value) #value
#define STATUS_VERSION                                                                             \
    STATUS_QUOTE(PLX_VERSION_MAJOR)                                                                \
    "." STATUS_QUOTE(PLX_VERSION_MINOR) "." STATUS_QUOTE(PLX_VERSION_PATCH)

#if defined(__clang__)
#define STATUS_COMPILER __VERSION__
#elif defined(__GNUC__)
#define STATUS_COMPILER "gcc " __VERSION__
#else
#define STATUS_COMPILER "unknown compiler"
#endif

#if defined(__x86_64__)
#define STATUS_KERNELS "x86-64: avx512, portable, reference"
#else
#define STATUS_KERNELS "portable, reference"
#endif

const char *plx_build(void)
{
    return "parallax " STATUS_VERSION ", commit " PLX_BUILD_COMMIT ", " STATUS_COMPILER
           ", CPU kernels for " STATUS_KERNELS ", " PLX_BUILD_CUDA;
}
