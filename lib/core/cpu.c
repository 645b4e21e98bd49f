/* cpu.c: what the processor can do, and how many threads the process may use.
 *
 * gcc's __builtin_cpu_supports already asks CPUID and the operating system's saved-state mask. AMX
 * needs one thing more: Linux lets a process use the tile registers only after it has asked for
 * them. */
#include "core/context.h"

#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

#if defined(__x86_64__) && defined(__linux__)

#include <cpuid.h>
#include <sys/syscall.h>

/* From the kernel's interface: request permission for a dynamically enabled state, here tile data.
 */
enum { CPU_REQUEST_STATE = 0x1023, CPU_STATE_TILE_DATA = 18 };

/* Asked of CPUID itself (leaf 7: tile and bf16 bits), because not every compiler of the day knows
 * these names. */
static bool cpu_has_amx(void)
{
    unsigned a, b, c, d;
    const unsigned bits = 1u << 24 | 1u << 22;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & bits) == bits;
}

uint32_t cpu_features(void)
{
    uint32_t features = 0;
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        features |= PLX_FEATURE_AVX2;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        features |= PLX_FEATURE_AVX512;
    if ((features & PLX_FEATURE_AVX512) && __builtin_cpu_supports("avx512bf16"))
        features |= PLX_FEATURE_AVX512_BF16;
    if ((features & PLX_FEATURE_AVX512) && __builtin_cpu_supports("avx512vnni"))
        features |= PLX_FEATURE_AVX512_VNNI;
    if (cpu_has_amx() && syscall(SYS_arch_prctl, CPU_REQUEST_STATE, CPU_STATE_TILE_DATA) == 0)
        features |= PLX_FEATURE_AMX_BF16;
    return features;
}

#else

uint32_t cpu_features(void)
{
    return 0;
}

#endif

int cpu_threads(void)
{
    /* The kernel refuses a mask smaller than its own, which may exceed the 1024 CPUs of cpu_set_t.
     */
    for (int cpus = 1024; cpus <= 1 << 16; cpus *= 2) {
        cpu_set_t *set = CPU_ALLOC(cpus);
        if (!set) break;
        size_t bytes = CPU_ALLOC_SIZE(cpus);
        int count = sched_getaffinity(0, bytes, set) == 0 ? CPU_COUNT_S(bytes, set) : 0;
        CPU_FREE(set);
        if (count > 0) return count;
    }
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (int)online : 1;
}
