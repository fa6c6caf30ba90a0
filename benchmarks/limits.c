/* What a hand can make of this machine: the traffic of the kernels with next to no arithmetic.
 *
 * Every loop takes bits, whatever they mean, and combines them by xor: no value is slow, and none overflows.
 * With several threads the others spin between repetitions, so that nobody has to be woken within the measurement.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#define INLINE static inline __attribute__((always_inline))
#if defined(__x86_64__) || defined(__i386__)
#define PAUSE() __builtin_ia32_pause()
#else
#define PAUSE() (void)0
#endif
#define MAX_ARRAYS 8
#define MAX_THREADS 64
#define LINE 64

typedef int64_t line_t __attribute__((vector_size(64), aligned(1), may_alias));
typedef int64_t quarter_t __attribute__((vector_size(16), aligned(1), may_alias));
typedef int32_t word_t __attribute__((aligned(1), may_alias));

static volatile int64_t sink;   /* where sums go that nobody reads, so that the reads are not left out */

/* ---- threads in lock step ---- */

typedef struct {
    atomic_long arrived;
    atomic_long round;
    long count;
} Barrier;

static void await(Barrier* b)
{
    long round = atomic_load(&b->round);
    if (atomic_fetch_add(&b->arrived, 1) + 1 == b->count) {
        atomic_store(&b->arrived, 0);
        atomic_fetch_add(&b->round, 1);
    } else
        while (atomic_load_explicit(&b->round, memory_order_acquire) == round)
            PAUSE();
}

typedef void (*work_t)(const void* job, long thread, Barrier* barrier);

typedef struct {
    work_t work;
    const void* job;
    long repeats, thread;
    Barrier* barrier;
} Member;

/* Keep the calling thread on the CPU that is `number`-th of those that it may use: threads that spin on one CPU wait
 * for each other until the system takes it away from them. */
static void settle(long number)
{
#ifdef __linux__
    cpu_set_t all, one;
    if (sched_getaffinity(0, sizeof(all), &all))
        return;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &all) && number-- == 0) {
            CPU_ZERO(&one);
            CPU_SET(cpu, &one);
            sched_setaffinity(0, sizeof(one), &one);
            return;
        }
#else
    (void)number;
#endif
}

static void* take_part(void* argument)
{
    const Member* m = argument;
    settle(m->thread);
    await(m->barrier);
    for (long r = 0; r < m->repeats; r++)
        m->work(m->job, m->thread, m->barrier);
    return NULL;
}

/* Return the seconds that all repetitions take, or -1 if there are no threads to be had. */
static double measure(work_t work, const void* job, long threads, long repeats)
{
    Barrier barrier = {0, 0, threads};
    Member members[MAX_THREADS];
    pthread_t handles[MAX_THREADS];
    struct timespec from, to;
    for (long t = 0; t < threads; t++)
        members[t] = (Member){work, job, repeats, t, &barrier};
    for (long t = 1; t < threads; t++)
        if (pthread_create(&handles[t], NULL, take_part, &members[t]))
            return -1;
#ifdef __linux__
    cpu_set_t before;
    int settled = threads > 1 && sched_getaffinity(0, sizeof(before), &before) == 0;
    if (settled)
        settle(0);
#endif
    await(&barrier);
    clock_gettime(CLOCK_MONOTONIC, &from);
    for (long r = 0; r < repeats; r++)
        work(job, 0, &barrier);
    clock_gettime(CLOCK_MONOTONIC, &to);
#ifdef __linux__
    if (settled)
        sched_setaffinity(0, sizeof(before), &before);
#endif
    for (long t = 1; t < threads; t++)
        pthread_join(handles[t], NULL);
    return to.tv_sec - from.tv_sec + 1e-9 * (to.tv_nsec - from.tv_nsec);
}

/* ---- streams ---- */

/* Passes over tensors. Of a pass, arrays[0 .. reads) are only read, the following ones updated. An array that is
 * narrow has half the bytes of the others per element. */
typedef struct {
    long reads, updates, narrow;    /* narrow: a bit for each array */
    char** arrays;                  /* [tensor][array] */
} Pass;

typedef struct {
    long threads, passes, tensors, ahead;   /* ahead: how far to prefetch, in bytes of a wide array; 0: not at all */
    long together;                          /* tensors that take all their passes before the next ones begin */
    const Pass* pass;
    const long* sizes;                      /* of tensors, in bytes of a wide array */
} Streams;

/* Update `bytes` bytes of each array from byte `from` on, in units of unit_t; return where the rest begins. */
#define SWEEP(name, unit_t, PREFETCH)                                                                                  \
    INLINE long name(const int reads, const int updates, const int narrow, char* const* a, long from, long to,         \
                     long ahead)                                                                                       \
    {                                                                                                                  \
        const long wide = narrow ? 2 : 1, step = wide * (long)sizeof(unit_t);                                          \
        unit_t seen = {0};                                                                                             \
        long i = from;                                                                                                 \
        for (; i + step <= to; i += step) {                                                                            \
            unit_t all = {0};                                                                                          \
            _Pragma("GCC unroll 8") for (int j = 0; j < reads + updates; j++)                                          \
            {                                                                                                          \
                const int half = narrow >> j & 1;                                                                      \
                char* at = a[j] + (half ? i / 2 : i);                                                                  \
                if (PREFETCH)                                                                                          \
                    for (int k = 0; k < (half ? 1 : wide); k++)                                                        \
                        __builtin_prefetch(at + (half ? ahead / 2 : ahead) + k * LINE, j >= reads);                    \
                all ^= *(unit_t*)at;                                                                                   \
                if (wide == 2 && !half)                                                                                \
                    all ^= ((unit_t*)at)[1];                                                                           \
            }                                                                                                          \
            _Pragma("GCC unroll 8") for (int j = reads; j < reads + updates; j++)                                      \
            {                                                                                                          \
                const int half = narrow >> j & 1;                                                                      \
                char* at = a[j] + (half ? i / 2 : i);                                                                  \
                *(unit_t*)at ^= all;                                                                                   \
                if (wide == 2 && !half)                                                                                \
                    ((unit_t*)at)[1] ^= all;                                                                           \
            }                                                                                                          \
            seen ^= all;                                                                                               \
        }                                                                                                              \
        if (updates == 0)                                                                                              \
            sink ^= *(word_t*)&seen;                                                                                   \
        return i;                                                                                                      \
    }

SWEEP(sweep_plain, line_t, 0)
SWEEP(sweep_ahead, line_t, 1)
SWEEP(sweep_quarters, quarter_t, 0)
SWEEP(sweep_words, word_t, 0)

INLINE void sweep(const int reads, const int updates, const int narrow, char* const* a, long from, long to, long ahead)
{
    char* local[MAX_ARRAYS];
    for (int j = 0; j < reads + updates; j++)
        local[j] = a[j];
    if (ahead)
        from = sweep_ahead(reads, updates, narrow, local, from, to, ahead);
    else
        from = sweep_plain(reads, updates, narrow, local, from, to, 0);
    if (narrow)     /* callers see to it that nothing is left */
        return;
    from = sweep_quarters(reads, updates, 0, local, from, to, 0);
    sweep_words(reads, updates, 0, local, from, to, 0);
}

/* Which patterns have a loop; of narrow arrays, the first that is read and the first that is updated. */
#define PATTERNS(X)                                                                                                    \
    X(1, 0) X(2, 0) X(3, 0) X(4, 0) X(5, 0) X(0, 1) X(1, 1) X(2, 1) X(3, 1) X(0, 2) X(1, 2) X(2, 2) X(0, 3) X(1, 3)    \
    X(2, 3) X(1, 4) X(2, 4) X(1, 5)

int has_pattern(long reads, long updates, long narrow)
{
#define X(r, u)                                                                                                        \
    if (reads == r && updates == u)                                                                                    \
        return narrow == 0 || (narrow == (1 | 1 << r) && u > 0);
    PATTERNS(X)
#undef X
    return 0;
}

static void run_pass(const Pass* p, long tensor, long from, long to, long ahead)
{
    char* const* a = p->arrays + tensor * (p->reads + p->updates);
#define X(r, u)                                                                                                        \
    if (p->reads == r && p->updates == u) {                                                                            \
        if (p->narrow)                                                                                                 \
            sweep(r, u, u ? 1 | 1 << r : 0, a, from, to, ahead);                                                       \
        else                                                                                                           \
            sweep(r, u, 0, a, from, to, ahead);                                                                        \
        return;                                                                                                        \
    }
    PATTERNS(X)
#undef X
}

/* Each thread takes its share of all bytes of a pass over some tensors, in one piece. */
static void share_pass(const Streams* s, long p, long first, long last, long thread)
{
    long total = 0, at = 0;
    for (long i = first; i < last; i++)
        total += s->sizes[i];
    long share = total / s->threads / (2 * LINE) * (2 * LINE);
    long begin = thread * share, end = thread + 1 == s->threads ? total : begin + share;
    for (long i = first; i < last && at < end; at += s->sizes[i++]) {
        long from = begin > at ? begin - at : 0, to = end - at < s->sizes[i] ? end - at : s->sizes[i];
        if (from < to)
            run_pass(&s->pass[p], i, from, to, s->ahead);
    }
}

static void run_streams(const void* job, long thread, Barrier* barrier)
{
    const Streams* s = job;
    for (long first = 0, last; first < s->tensors; first = last) {
        last = first + s->together < s->tensors ? first + s->together : s->tensors;
        for (long p = 0; p < s->passes; p++) {
            share_pass(s, p, first, last, thread);
            if (s->threads > 1)
                await(barrier);
        }
    }
}

double measure_streams(const Streams* job, long repeats)
{
    return measure(run_streams, job, job->threads, repeats);
}

/* ---- copies ---- */

typedef struct {
    long threads, size;
    char *from, *to;
} Copy;

static void run_copy(const void* job, long thread, Barrier* barrier)
{
    const Copy* c = job;
    long share = c->size / c->threads / LINE * LINE, begin = thread * share;
    memcpy(c->to + begin, c->from + begin, thread + 1 == c->threads ? c->size - begin : share);
    if (c->threads > 1)
        await(barrier);
}

double measure_copy(const Copy* job, long repeats)
{
    return measure(run_copy, job, job->threads, repeats);
}

/* ---- rows ---- */

/* Gather, update and scatter rows of tables by gradients, which follow one another. Gradients beyond the rows are
 * those of rows that come again: they are read. */
typedef struct {
    long threads, tables, rows, gradients, width, ahead;    /* width: bytes of a row; ahead: rows to prefetch */
    char** table;
    const char* gradient;
    const int64_t* row;     /* no row twice */
} Rows;

#define UPDATE_ROW(name, unit_t)                                                                                       \
    INLINE void name(const Rows* r, const int tables, long width, int64_t row, const char* g)                          \
    {                                                                                                                  \
        for (long i = 0; i < width; i += sizeof(unit_t)) {                                                             \
            unit_t all = *(const unit_t*)(g + i);                                                                      \
            _Pragma("GCC unroll 4") for (int t = 0; t < tables; t++) all ^= *(unit_t*)(r->table[t] + row * width + i); \
            _Pragma("GCC unroll 4") for (int t = 0; t < tables; t++) *(unit_t*)(r->table[t] + row * width + i) ^= all; \
        }                                                                                                              \
    }

UPDATE_ROW(update_lines, line_t)
UPDATE_ROW(update_quarters, quarter_t)
UPDATE_ROW(update_words, word_t)

INLINE void update_rows(const Rows* r, const int tables, long from, long to)
{
    long width = r->width, last = r->rows - 1;
    for (long j = from; j < to; j++) {
        if (r->ahead) {
            int64_t next = r->row[j + r->ahead < last ? j + r->ahead : last];
            for (int t = 0; t < tables; t++)
                for (long i = 0; i < width; i += LINE)
                    __builtin_prefetch(r->table[t] + next * width + i, 1);
        }
        const char* g = r->gradient + j * width;
        if (width % sizeof(line_t) == 0)
            update_lines(r, tables, width, r->row[j], g);
        else if (width % sizeof(quarter_t) == 0)
            update_quarters(r, tables, width, r->row[j], g);
        else
            update_words(r, tables, width, r->row[j], g);
    }
}

static void run_rows(const void* job, long thread, Barrier* barrier)
{
    const Rows* r = job;
    long from = r->rows * thread / r->threads, to = r->rows * (thread + 1) / r->threads;
    switch (r->tables) {
    case 1: update_rows(r, 1, from, to); break;
    case 2: update_rows(r, 2, from, to); break;
    case 3: update_rows(r, 3, from, to); break;
    default: update_rows(r, 4, from, to);
    }
    char* rest[1] = {(char*)r->gradient};
    long again = r->gradients - r->rows;
    from = (r->rows + again * thread / r->threads) * r->width;
    to = (r->rows + again * (thread + 1) / r->threads) * r->width;
    sweep(1, 0, 0, rest, from, to, 0);
    if (r->threads > 1)
        await(barrier);
}

double measure_rows(const Rows* job, long repeats)
{
    return measure(run_rows, job, job->threads, repeats);
}
