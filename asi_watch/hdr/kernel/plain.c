/* Sums and cells, one sample at a time, for any machine.
 *
 * Per sample and exposure: one look-up of a 64-bit word and one addition.
 */
#include <string.h>

#include "kernel.h"

#if defined(__BYTE_ORDER__) && defined(__ORDER_LITTLE_ENDIAN__)
#define WIDE_LOADS (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__)
#else
#define WIDE_LOADS 0
#endif

enum {
    PERIOD = 8 * LANES, /* after which lanes and eight-byte words start again */
    PASS = 6,           /* exposures summed in registers at a time */
};

INLINE void
sum_some(const int count, const int fresh, const uint8_t *const *frame, tables_t table,
         uint64_t *sum, ptrdiff_t n)
{
    const uint8_t *f[PASS];
    for (int k = 0; k < count; k++) {
        f[k] = frame[k];
    }
    ptrdiff_t i = 0;
#if WIDE_LOADS
    /* Eight codes per load: loads, else two per look-up, are what limits this loop. */
    for (; i + PERIOD <= n; i += PERIOD) {
#pragma GCC unroll 3
        for (int group = 0; group < PERIOD; group += 8) {
            uint64_t codes[PASS];
#pragma GCC unroll 6
            for (int k = 0; k < count; k++) {
                memcpy(&codes[k], f[k] + i + group, 8);
            }
#pragma GCC unroll 8
            for (int j = group; j < group + 8; j++) {
                uint64_t total = fresh ? 0 : sum[i + j];
#pragma GCC unroll 6
                for (int k = 0; k < count; k++) {
                    total += table[k][j % LANES][(uint8_t)codes[k]];
                    codes[k] >>= 8;
                }
                sum[i + j] = total;
            }
        }
    }
#endif
    for (; i + LANES <= n; i += LANES) {
        for (int lane = 0; lane < LANES; lane++) {
            uint64_t total = fresh ? 0 : sum[i + lane];
            for (int k = 0; k < count; k++) {
                total += table[k][lane][f[k][i + lane]];
            }
            sum[i + lane] = total;
        }
    }
    for (int lane = 0; i < n; i++, lane++) {
        uint64_t total = fresh ? 0 : sum[i];
        for (int k = 0; k < count; k++) {
            total += table[k][lane][f[k][i]];
        }
        sum[i] = total;
    }
}

/* Sum all frames over samples start … start + n. The counts are constants to the compiler, which
 * unrolls each case. */
static void
sum_frames(const uint8_t *const *frames, int count, ptrdiff_t start, tables_t tables,
           uint64_t *sum, ptrdiff_t n)
{
    for (int done = 0; done < count;) {
        const int left = count - done;
        const int take = left > PASS ? (left >= 2 * PASS ? PASS : (left + 1) / 2) : left;
        const uint8_t *f[PASS];
        for (int k = 0; k < take; k++) {
            f[k] = frames[done + k] + start;
        }
        tables_t t = tables + done;
        const int fresh = done == 0;
        switch (take * 2 + fresh) {
        case 3: sum_some(1, 1, f, t, sum, n); break;
        case 4: sum_some(2, 0, f, t, sum, n); break;
        case 5: sum_some(2, 1, f, t, sum, n); break;
        case 6: sum_some(3, 0, f, t, sum, n); break;
        case 7: sum_some(3, 1, f, t, sum, n); break;
        case 8: sum_some(4, 0, f, t, sum, n); break;
        case 9: sum_some(4, 1, f, t, sum, n); break;
        case 10: sum_some(5, 0, f, t, sum, n); break;
        case 11: sum_some(5, 1, f, t, sum, n); break;
        case 12: sum_some(6, 0, f, t, sum, n); break;
        case 13: sum_some(6, 1, f, t, sum, n); break;
        default: sum_some(1, 0, f, t, sum, n); break;
        }
        done += take;
    }
    for (ptrdiff_t i = n; i < n + PAD; i++) {
        sum[i] = 1; /* what is read beyond the end by whole vectors: weight 1, x = 0 */
    }
}

/* ---- x and cells ------------------------------------------------------------------------ */

/* x is written only where it is wanted, that is not NULL. */
static void
cells_plain(const uint64_t *sum, ptrdiff_t n, const reading_t *how, float *x, int32_t *cell)
{
    for (ptrdiff_t i = 0, lane = 0; i < n; i++) {
        const uint32_t lower = (uint32_t)sum[i], upper = (uint32_t)(sum[i] >> 32);
        const uint32_t weight = lower & how->weight_mask;
        const float quotient = (float)upper / (float)(weight ? weight : 1);
        if (x) {
            x[i] = quotient;
        }
        int32_t index = (int32_t)(quotient * how->scale[lane]);
        index = (uint32_t)index < (uint32_t)how->count ? index : how->count - 1;
        cell[i] = weight ? index : how->count + (int32_t)(lower >> how->weight_bits);
        lane = lane == LANES - 1 ? 0 : lane + 1;
    }
}

void
sum_cells(const job_t *job, ptrdiff_t start, ptrdiff_t n, float *x, int32_t *cell)
{
    uint64_t sum[CHUNK + PAD];
    sum_frames(job->frames, job->count, start, job->tables, sum, n);
#if ON_X86
    if (vectors >= AVX2) {
        cells_avx2(sum, n, &job->how, x, cell);
        return;
    }
#endif
    cells_plain(sum, n, &job->how, x, cell);
}
