/* x and cells of wide sums, in the order of the samples. */
#include "kernel.h"

#if ON_X86

#include "wide.h"

/* Words of samples 4 j + 0, 1, 2, 3, in the order of the samples: 16 to a register. */
ONE void
sort_words(__m512i *w)
{
    const __m512i low01 = _mm512_unpacklo_epi32(w[0], w[1]),
                  high01 = _mm512_unpackhi_epi32(w[0], w[1]);
    const __m512i low23 = _mm512_unpacklo_epi32(w[2], w[3]),
                  high23 = _mm512_unpackhi_epi32(w[2], w[3]);
    /* Four samples to a quarter: 0, 16, 32, 48 in the first, 4, 20, … in the second, and so on. */
    const __m512i a = _mm512_unpacklo_epi64(low01, low23), b = _mm512_unpackhi_epi64(low01, low23);
    const __m512i c = _mm512_unpacklo_epi64(high01, high23),
                  d = _mm512_unpackhi_epi64(high01, high23);
    const __m512i ab02 = _mm512_shuffle_i32x4(a, b, 0x88), ab13 = _mm512_shuffle_i32x4(a, b, 0xdd);
    const __m512i cd02 = _mm512_shuffle_i32x4(c, d, 0x88), cd13 = _mm512_shuffle_i32x4(c, d, 0xdd);
    w[0] = _mm512_shuffle_i32x4(ab02, cd02, 0x88);
    w[1] = _mm512_shuffle_i32x4(ab13, cd13, 0x88);
    w[2] = _mm512_shuffle_i32x4(ab02, cd02, 0xdd);
    w[3] = _mm512_shuffle_i32x4(ab13, cd13, 0xdd);
}

/* Words of a block, parted into lanes, to where they belong. */
ONE void
give_back(const wide_t *wide, const __m512i (*parted)[4], void *out)
{
    for (int quarter = 0; quarter < 4; quarter++) {
#pragma GCC unroll 3
        for (int i = 0; i < LANES; i++) {
            const int32_t (*order)[WORDS] = wide->give_words[i];
            __m512i words = _mm512_permutex2var_epi32(
                parted[0][quarter], _mm512_load_si512(order[0]), parted[1][quarter]);
            words = _mm512_mask_permutexvar_epi32(words, wide->give_third_word[i],
                                                  _mm512_load_si512(order[1]), parted[2][quarter]);
            _mm512_storeu_si512((int32_t *)out + (quarter * LANES + i) * WORDS, words);
        }
    }
}

ONE void
cells_of_lane(const reading_t *how, const wide_t *wide, const block_t *codes, int lane,
              const quotients_t *q, __m512i *cell)
{
    const __m512 scale = _mm512_set1_ps(how->scale[lane]);
    const __m512i count = _mm512_set1_epi32(how->count), last = _mm512_set1_epi32(how->count - 1);
    const __m512i counters =
        any_empty(q) ? sum_counters(wide, codes, lane) : _mm512_setzero_si512();
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        __m512i index = _mm512_cvttps_epi32(_mm512_mul_ps(q->x[i], scale));
        index = _mm512_min_epu32(index, last);
        const __m512i counter =
            _mm512_and_si512(_mm512_srli_epi32(counters, 8 * i), _mm512_set1_epi32(0xff));
        cell[i] = _mm512_mask_add_epi32(index, q->empty[i], count, counter);
    }
    sort_words(cell);
}

/* Writes whole blocks, whose ends mean nothing where a chunk ends before. */
ONE void
cells_of_block(const int numerators, const int weights, const wide_t *wide, const job_t *job,
               const uint8_t *const *frames, float *x, int32_t *cell)
{
    block_t codes[MAX_FRAMES] __attribute__((aligned(64)));
    __m512i cells[LANES][4], xs[LANES][4];
    part_lanes(wide, frames, codes);
    for (int lane = 0; lane < LANES; lane++) {
        const quotients_t q = sum_lane(numerators, weights, wide, codes, lane);
        cells_of_lane(&job->how, wide, codes, lane, &q, cells[lane]);
        if (x) {
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) {
                xs[lane][i] = _mm512_castps_si512(q.x[i]);
            }
            sort_words(xs[lane]);
        }
    }
    give_back(wide, cells, cell);
    if (x) {
        give_back(wide, xs, x);
    }
}

TARGET void
wide_cells(const wide_t *wide, const job_t *job, ptrdiff_t start, ptrdiff_t n, float *x,
           int32_t *cell)
{
    uint8_t room[MAX_FRAMES][BLOCK];
    const uint8_t *frames[MAX_FRAMES];
    for (ptrdiff_t done = 0; done < n; done += BLOCK) {
        const ptrdiff_t some = n - done < BLOCK ? n - done : BLOCK;
        float *x_here = x ? x + done : NULL;
        place_frames(job, start + done, some, room, frames);
        if (wide->weights > 1) {
            cells_of_block(4, 4, wide, job, frames, x_here, cell + done);
        } else if (wide->numerators > 3) {
            cells_of_block(4, 1, wide, job, frames, x_here, cell + done);
        } else {
            cells_of_block(3, 1, wide, job, frames, x_here, cell + done);
        }
    }
}

#endif
