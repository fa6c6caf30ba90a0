/* What C11 leaves to the compiler and the system: atomics, waiting, and which vector units the CPU has. */
#ifndef OPTIMCORE_PLATFORM_H
#define OPTIMCORE_PLATFORM_H

#include <stdlib.h>
#include <string.h>

/* leave the CPU to others; microseconds of a clock that never goes back */
#ifdef _WIN32
#include <windows.h>
static inline void yield_thread(void) { SwitchToThread(); }
static inline unsigned long microseconds(void) {
    LARGE_INTEGER ticks, per_second;
    QueryPerformanceCounter(&ticks);
    QueryPerformanceFrequency(&per_second);
    return (unsigned long)(ticks.QuadPart / (per_second.QuadPart / 1000000));
}
#else
#include <sched.h>
#include <time.h>
static inline void yield_thread(void) { sched_yield(); }
static inline unsigned long microseconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (unsigned long)t.tv_sec * 1000000 + (unsigned long)t.tv_nsec / 1000;
}
#endif

/* sequentially consistent, but for the relaxed ones; fetch_add and exchange return the value before */
#ifdef _MSC_VER
#include <intrin.h>
static inline long fetch_add(long *counter, long amount) { return _InterlockedExchangeAdd(counter, amount); }
static inline long exchange(long *flag, long value) { return _InterlockedExchange(flag, value); }
static inline long load_relaxed(long *number) { return *(volatile long *)number; }
static inline void store_relaxed(long *number, long value) { *(volatile long *)number = value; }
static inline int replace_pointer(void **pointer, void *expected, void *value) {
    return _InterlockedCompareExchangePointer(pointer, value, expected) == expected;
}
static inline void *load_pointer(void **pointer) { return _InterlockedCompareExchangePointer(pointer, NULL, NULL); }
#else
static inline long fetch_add(long *counter, long amount) { return __atomic_fetch_add(counter, amount, __ATOMIC_SEQ_CST); }
static inline long exchange(long *flag, long value) { return __atomic_exchange_n(flag, value, __ATOMIC_SEQ_CST); }
static inline long load_relaxed(long *number) { return __atomic_load_n(number, __ATOMIC_RELAXED); }
static inline void store_relaxed(long *number, long value) { __atomic_store_n(number, value, __ATOMIC_RELAXED); }
static inline int replace_pointer(void **pointer, void *expected, void *value) {
    return __atomic_compare_exchange_n(pointer, &expected, value, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}
static inline void *load_pointer(void **pointer) { return __atomic_load_n(pointer, __ATOMIC_SEQ_CST); }
#endif

/* How this thread rounds and what it makes of subnormal numbers: all that changes the result of an operation. Masks and
 * flags of exceptions are no part of it. */
#if defined(__x86_64__) || defined(_M_X64)
#include <xmmintrin.h>
#define FLOAT_MODE 0xe040u          /* of MXCSR: flush to zero, rounding, denormals are zero */
static inline unsigned long float_mode(void) { return _mm_getcsr() & FLOAT_MODE; }
static inline void set_float_mode(unsigned long mode) { _mm_setcsr((_mm_getcsr() & ~FLOAT_MODE) | (unsigned)mode); }
#elif defined(__aarch64__) && defined(__GNUC__)
#define FLOAT_MODE 0x03c80007ul     /* of FPCR: FIZ, AH, NEP, FZ16, rounding, FZ, DN */
static inline unsigned long read_fpcr(void) {
    unsigned long fpcr;
    __asm__ volatile("mrs %0, fpcr" : "=r"(fpcr));
    return fpcr;
}
static inline unsigned long float_mode(void) { return read_fpcr() & FLOAT_MODE; }
static inline void set_float_mode(unsigned long mode) {
    unsigned long fpcr = (read_fpcr() & ~FLOAT_MODE) | mode;
    __asm__ volatile("msr fpcr, %0" : : "r"(fpcr));
}
#elif defined(_M_ARM64)
#define FLOAT_MODE 0x03c80007u
static inline unsigned long float_mode(void) { return (unsigned long)_ReadStatusReg(ARM64_FPCR) & FLOAT_MODE; }
static inline void set_float_mode(unsigned long mode) {
    _WriteStatusReg(ARM64_FPCR, (_ReadStatusReg(ARM64_FPCR) & ~(__int64)FLOAT_MODE) | mode);
}
#else
#include <fenv.h>
static inline unsigned long float_mode(void) { return (unsigned long)fegetround(); }
static inline void set_float_mode(unsigned long mode) { fesetround((int)mode); }
#endif

/* number of the CPU that this thread is on; where the system does not tell, a number that no two calls share */
#ifdef __linux__
static inline long current_cpu(void) {
    static long unknown = -1;
    long cpu = sched_getcpu();
    return cpu >= 0 ? cpu : fetch_add(&unknown, -1);
}
#else
static inline long current_cpu(void) { static long calls; return fetch_add(&calls, 1); }
#endif

/* have this thread go to another CPU, for once; whether it did. Whoever else changes what CPUs it may use at the same
 * moment may find that undone. */
#ifdef __linux__
static inline int leave_cpu(long cpu) {
    cpu_set_t all, others;
    if (sched_getaffinity(0, sizeof all, &all) != 0)
        return 0;
    others = all;
    CPU_CLR(cpu, &others);
    return sched_setaffinity(0, sizeof others, &others) == 0 && sched_setaffinity(0, sizeof all, &all) == 0;
}
#else
static inline int leave_cpu(long cpu) { (void)cpu; return 0; }
#endif

/* tell the CPU that this thread only looks whether something has changed */
#if defined(_MSC_VER)
static inline void relax(void) { YieldProcessor(); }
#elif defined(__x86_64__) || defined(__i386__)
static inline void relax(void) { __builtin_ia32_pause(); }
#elif defined(__aarch64__)
static inline void relax(void) { __asm__ volatile("yield"); }
#else
static inline void relax(void) { }
#endif

/* Memory, not initialized, that starts at a cache line, and from about half a large page on lies in large pages; release
 * it with free(). Large pages save most of the time that address translation takes, and most of that in which the system
 * hands out pages: 8 MB in 0.2 ms, beside 1 ms if half a large page at either end is left to small ones and 2.9 ms in
 * small ones alone (AMD EPYC of family 25, Linux 6.18). */
#ifdef __linux__
#include <sys/mman.h>
#endif
static inline void *allocate(size_t nbytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    const size_t line = 64, page = (size_t)1 << 21, pages = (nbytes + page / 2) / page * page;
    void *memory;
    if (posix_memalign(&memory, pages ? page : line, pages > nbytes ? pages : nbytes + 1) != 0)
        return NULL;
    if (pages)
        madvise(memory, pages, MADV_HUGEPAGE);      /* advice: without it everything works as well */
    return memory;
#else
    return malloc(nbytes ? nbytes : 1);
#endif
}

/* the same for a table that is read at random, zeroed; what is small comes from calloc, which need not write it */
static inline void *allocate_table(size_t nbytes) {
    void *table;
    if (nbytes < (size_t)1 << 20)
        return calloc(nbytes, 1);
    table = allocate(nbytes);
    return table ? memset(table, 0, nbytes) : NULL;
}

/* ask for a cache line that will be written soon; any address is allowed, also one that is not mapped */
#ifdef _MSC_VER
static inline void prefetch(const void *address) { (void)address; }
#else
static inline void prefetch(const void *address) { __builtin_prefetch(address, 1); }
#endif

/* the same for all lines of at least one byte. It must become a part of its caller early: gcc takes a function that
 * does nothing but prefetch for one that does nothing, and leaves out its calls. */
#ifdef __GNUC__
__attribute__((always_inline))
#endif
static inline void prefetch_span(const void *start, size_t nbytes) {
    const char *line = (const char *)start, *last = line + nbytes - 1;
    for (; line < last; line += 64)
        prefetch(line);
    prefetch(last);             /* in another line if the span does not begin at one */
}

/* The compiler's own check also asks whether the operating system saves the wide registers. Old versions of clang do not
 * know "f16c" there; its instructions use the registers of AVX2. */
#if (defined(__x86_64__) || defined(__i386__)) && defined(__GNUC__)
#include <cpuid.h>
static inline int cpu_has_f16c(void) {
    unsigned eax, ebx, ecx, edx;
    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C);
}
static inline int cpu_has_avx2(void) { return __builtin_cpu_supports("avx2") && cpu_has_f16c(); }
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

/* ---- The processor notes that a result was too large or too small (IEEE 754, sections 7.4 and 7.5). */
#if defined(__x86_64__)
#include <xmmintrin.h>
static inline int out_of_range(void) { return (_mm_getcsr() & 0x18u) != 0; }
static inline void set_out_of_range(int value) {
    unsigned mode = _mm_getcsr(), flags = value ? 0x18u : 0u;
    if ((mode & 0x18u) != flags)
        _mm_setcsr((mode & ~0x18u) | flags);
}
#else
#include <fenv.h>
static inline int out_of_range(void) { return fetestexcept(FE_OVERFLOW | FE_UNDERFLOW) != 0; }
static inline void set_out_of_range(int value) {
    if (value)
        feraiseexcept(FE_OVERFLOW | FE_UNDERFLOW);
    else
        feclearexcept(FE_OVERFLOW | FE_UNDERFLOW);
}
#endif

#endif
