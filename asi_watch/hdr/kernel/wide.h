/* Sums of 64 samples at a time, with AVX-512: the same integers as in sums.c.
 *
 * A table of 256 bytes fits four registers, and a permutation (VPERMB) looks up 64 codes in one of
 * them. So the words are taken apart into planes of one byte each, as many as are in use: three or
 * four of the numerator, one or four of the weight. Each plane is summed in 16 bits, for samples
 * of even and odd number, and the planes are put together once per sample instead of once per
 * exposure. The counters, which matter only where the weight is zero, are summed only there.
 */
#ifndef ASI_WATCH_WIDE_H
#define ASI_WATCH_WIDE_H

#include <immintrin.h>
#include <string.h>

#include "kernel.h"

#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512vbmi,avx512vnni")))
#define ONE TARGET INLINE

enum {
    WIDTH = 64,            /* samples of one lane in a register */
    BLOCK = LANES * WIDTH, /* samples as they are interleaved */
    WORDS = 16,            /* 32-bit words of a register */
    NUMERATORS = 4,
    WEIGHTS = 4,
    MOST_PLANES = NUMERATORS + WEIGHTS,
    KNOT_BITS = 4, /* cells of a knot, in bits */
    KNOTS = 256,
    AHEAD = 4 * BLOCK, /* how far the frames are fetched into the cache before they are read */
};

/* 256 bytes, looked up by a code. */
typedef struct {
    uint8_t part[4][WIDTH];
} __attribute__((aligned(64))) table_t;

struct wide {
    table_t knots[LANES][3]; /* high and low byte of 256 · code, and the slope */
    table_t special[LANES];  /* codes of the counters */
    uint8_t take[LANES][2][WIDTH], give[LANES][2][WIDTH];
    int32_t give_words[LANES][2][WORDS];
    uint64_t take_third[LANES], give_third[LANES];
    uint16_t give_third_word[LANES];
    int count, numerators, weights, has_codes;
    table_t *counters; /* one per exposure and lane */
    table_t planes[];  /* numerators, then weights, of each exposure and lane */
};

typedef struct {
    __m512i z;
    __mmask64 bit6, bit7, both;
} index_t;

ONE index_t
index_of(__m512i z)
{
    index_t index = {.z = z};
    index.bit7 = _mm512_movepi8_mask(z);
    index.bit6 = _mm512_movepi8_mask(_mm512_add_epi8(z, z));
    index.both = _kand_mask64(index.bit6, index.bit7);
    return index;
}

ONE __m512i
look_up(const table_t *table, index_t index)
{
    const __m512i *part = (const __m512i *)table->part;
    __m512i found = _mm512_permutexvar_epi8(index.z, part[0]);
    found = _mm512_mask_permutexvar_epi8(found, index.bit6, index.z, part[1]);
    found = _mm512_mask_permutexvar_epi8(found, index.bit7, index.z, part[2]);
    return _mm512_mask_permutexvar_epi8(found, index.both, index.z, part[3]);
}

ONE __m512i
pick(const uint8_t order[2][WIDTH], uint64_t third, __m512i a, __m512i b, __m512i c)
{
    const __m512i found = _mm512_permutex2var_epi8(a, _mm512_load_si512(order[0]), b);
    return _mm512_mask_permutexvar_epi8(found, third, _mm512_load_si512(order[1]), c);
}

typedef uint8_t block_t[LANES][WIDTH];

/* The counters of a lane; no inline function, so that what is seldom needed takes no registers. */
TARGET __m512i sum_counters(const wide_t *wide, const block_t *codes, int lane);

ONE void
part_lanes(const wide_t *wide, const uint8_t *const *frames, block_t *codes)
{
    for (int k = 0; k < wide->count; k++) {
        const __m512i a = _mm512_loadu_si512(frames[k]);
        const __m512i b = _mm512_loadu_si512(frames[k] + WIDTH);
        const __m512i c = _mm512_loadu_si512(frames[k] + 2 * WIDTH);
#pragma GCC unroll 3
        for (int line = 0; line < LANES; line++) {
            _mm_prefetch((const char *)frames[k] + AHEAD + line * WIDTH, _MM_HINT_T0);
        }
#pragma GCC unroll 3
        for (int lane = 0; lane < LANES; lane++) {
            const __m512i found = pick(wide->take[lane], wide->take_third[lane], a, b, c);
            _mm512_store_si512(codes[k][lane], found);
        }
    }
}

/* Of the samples 4 j + 0, 1, 2, 3 of a lane. */
typedef struct {
    __m512 x[4];
    __mmask16 empty[4];
} quotients_t;

/* Parts of two 16-bit sums, as 32-bit integers: of the lower (0) and upper (1) half. */
ONE __m512i
half_of(__m512i sums, int upper)
{
    return upper ? _mm512_srli_epi32(sums, 16) : _mm512_and_si512(sums, _mm512_set1_epi32(0xffff));
}

/* Four planes, or three, put together; 16-bit sums are below 2^15, which VPDPWSSD takes as signed.
 */
ONE __m512i
assemble(const int planes, const __m512i *sums, int upper)
{
    const int place = upper ? 16 : 0;
    const __m512i top = _mm512_set1_epi32((int)0xffff0000);
    __m512i total = upper ? _mm512_and_si512(sums[2], top) : _mm512_slli_epi32(sums[2], 16);
    total = _mm512_dpwssd_epi32(total, sums[0], _mm512_set1_epi32(1 << place));
    total = _mm512_dpwssd_epi32(total, sums[1], _mm512_set1_epi32(256 << place));
    if (planes == 4) {
        total = _mm512_add_epi32(total, _mm512_slli_epi32(half_of(sums[3], upper), 24));
    }
    return total;
}

ONE quotients_t
sum_lane(const int numerators, const int weights, const wide_t *wide, const block_t *codes,
         int lane)
{
    const int planes = numerators + weights;
    const __m512i low = _mm512_set1_epi16(0xff);
    __m512i even[MOST_PLANES], odd[MOST_PLANES];
#pragma GCC unroll 8
    for (int p = 0; p < planes; p++) {
        even[p] = odd[p] = _mm512_setzero_si512();
    }
    const table_t *table = wide->planes + lane * planes;
    for (int k = 0; k < wide->count; k++) {
        const index_t index = index_of(_mm512_load_si512(codes[k][lane]));
#pragma GCC unroll 8
        for (int p = 0; p < planes; p++) {
            const __m512i found = look_up(table + p, index);
            even[p] = _mm512_add_epi16(even[p], _mm512_and_si512(found, low));
            odd[p] = _mm512_add_epi16(odd[p], _mm512_srli_epi16(found, 8));
        }
        table += LANES * planes;
    }
    quotients_t result;
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        const __m512i *sums = i % 2 ? odd : even;
        const __m512i numerator = assemble(numerators, sums, i / 2);
        const __m512i weight = weights == 1 ? half_of(sums[numerators], i / 2)
                                            : assemble(WEIGHTS, sums + numerators, i / 2);
        result.empty[i] = _mm512_testn_epi32_mask(weight, weight);
        result.x[i] = _mm512_div_ps(_mm512_cvtepu32_ps(numerator), _mm512_cvtepi32_ps(weight));
    }
    return result;
}

ONE int
any_empty(const quotients_t *q)
{
    return (q->empty[0] | q->empty[1] | q->empty[2] | q->empty[3]) != 0;
}

/* The frames from a sample on; those of an incomplete block are copied to where 192 bytes may be
 * read. */
INLINE void
place_frames(const job_t *job, ptrdiff_t start, ptrdiff_t n, uint8_t (*room)[BLOCK],
             const uint8_t **frames)
{
    for (int k = 0; k < job->count; k++) {
        frames[k] = job->frames[k] + start;
        if (n < BLOCK) {
            memset(room[k], 0, BLOCK);
            memcpy(room[k], frames[k], (size_t)n);
            frames[k] = room[k];
        }
    }
}

#endif
