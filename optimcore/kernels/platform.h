/* What C11 leaves to the compiler and the system: atomic counters, yielding, and which vector units the CPU has. */
#ifndef OPTIMCORE_PLATFORM_H
#define OPTIMCORE_PLATFORM_H

#ifdef _WIN32
#include <windows.h>
static inline void yield_thread(void) { SwitchToThread(); }
#else
#include <sched.h>
static inline void yield_thread(void) { sched_yield(); }
#endif

/* sequentially consistent: the value before the addition */
#ifdef _MSC_VER
static inline long fetch_add(long *counter, long amount) { return _InterlockedExchangeAdd(counter, amount); }
#else
static inline long fetch_add(long *counter, long amount) { return __atomic_fetch_add(counter, amount, __ATOMIC_SEQ_CST); }
#endif

/* the compiler's own check also asks whether the operating system saves the wide registers */
#if (defined(__x86_64__) || defined(__i386__)) && defined(__GNUC__)
static inline int cpu_has_avx2(void) { return __builtin_cpu_supports("avx2"); }
static inline int cpu_has_avx512(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")
        && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
}
#else
static inline int cpu_has_avx2(void) { return 0; }
static inline int cpu_has_avx512(void) { return 0; }
#endif

#if defined(__clang__)
#define COMPILER "clang " __clang_version__
#elif defined(__GNUC__)
#define COMPILER "gcc " __VERSION__
#elif defined(_MSC_VER)
#define COMPILER "MSVC"
#else
#define COMPILER "unknown"
#endif

#ifndef OPTIMCORE_FLAGS
#define OPTIMCORE_FLAGS ""
#endif

#endif
