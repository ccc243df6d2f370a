/* Sums and cells, one sample at a time: the way of any machine.
 *
 * Per sample and exposure: one look-up of a 64-bit word and one addition.
 */
#include <string.h>

#include "kernel.h"

#if ON_X86
#include <immintrin.h>
#endif

#if defined(__BYTE_ORDER__) && defined(__ORDER_LITTLE_ENDIAN__)
#define WIDE_LOADS (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__)
#else
#define WIDE_LOADS 0
#endif

enum {
    PERIOD = 8 * LANES, /* after which lanes and eight-byte words both begin anew */
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

#if ON_X86
/* Unsigned to float in one rounding: both halves are exact, their sum is rounded. */
__attribute__((target("avx2"))) static inline __m256
float_of(__m256i value)
{
    const __m256 high = _mm256_cvtepi32_ps(_mm256_srli_epi32(value, 16));
    const __m256 low = _mm256_cvtepi32_ps(_mm256_and_si256(value, _mm256_set1_epi32(0xffff)));
    return _mm256_add_ps(_mm256_mul_ps(high, _mm256_set1_ps(65536.0f)), low);
}

__attribute__((target("avx2"))) INLINE void
cells_some(const int want_x, const uint64_t *sum, ptrdiff_t n, const reading_t *how, float *x,
           int32_t *cell)
{
    /* Samples 0 1 4 5 2 3 6 7: the order in which shuffles split eight words, undone at the end.
     */
    const float *s = how->scale;
    const __m256 scales[LANES] = {
        _mm256_setr_ps(s[0], s[1], s[1], s[2], s[2], s[0], s[0], s[1]),
        _mm256_setr_ps(s[2], s[0], s[0], s[1], s[1], s[2], s[2], s[0]),
        _mm256_setr_ps(s[1], s[2], s[2], s[0], s[0], s[1], s[1], s[2]),
    };
    const __m256i mask = _mm256_set1_epi32((int)how->weight_mask), one = _mm256_set1_epi32(1);
    const __m256i count = _mm256_set1_epi32(how->count);
    const __m256i last = _mm256_set1_epi32(how->count - 1);
    const __m128i shift = _mm_cvtsi32_si128(how->weight_bits);
    const __m256i order = _mm256_setr_epi32(0, 1, 4, 5, 2, 3, 6, 7);
    int phase = 0;
    for (ptrdiff_t i = 0; i < n; i += 8) {
        const __m256 a = _mm256_loadu_ps((const float *)(sum + i));
        const __m256 b = _mm256_loadu_ps((const float *)(sum + i + 4));
        const __m256i lower = _mm256_castps_si256(_mm256_shuffle_ps(a, b, 0x88));
        const __m256i upper = _mm256_castps_si256(_mm256_shuffle_ps(a, b, 0xdd));
        const __m256i weight = _mm256_and_si256(lower, mask);
        const __m256i empty = _mm256_cmpeq_epi32(weight, _mm256_setzero_si256());
        const __m256 quotient =
            _mm256_div_ps(float_of(upper), _mm256_cvtepi32_ps(_mm256_max_epu32(weight, one)));
        if (want_x) {
            _mm256_storeu_ps(x + i, _mm256_permutevar8x32_ps(quotient, order));
        }
        __m256i index = _mm256_cvttps_epi32(_mm256_mul_ps(quotient, scales[phase]));
        index = _mm256_min_epu32(index, last);
        const __m256i special = _mm256_add_epi32(count, _mm256_srl_epi32(lower, shift));
        index = _mm256_blendv_epi8(index, special, empty);
        index = _mm256_permutevar8x32_epi32(index, order);
        _mm256_storeu_si256((__m256i *)(cell + i), index);
        phase = phase == LANES - 1 ? 0 : phase + 1;
    }
}

__attribute__((target("avx2"))) static void
cells_avx2(const uint64_t *sum, ptrdiff_t n, const reading_t *how, float *x, int32_t *cell)
{
    if (x) {
        cells_some(1, sum, n, how, x, cell);
    } else {
        cells_some(0, sum, n, how, x, cell);
    }
}
#endif

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
