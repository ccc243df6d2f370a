/* 8-bit codes of wide sums, where the tone curve is smooth: no table in memory.
 *
 * A cell's code lies on the line of its knot, one for every 16 cells (see _tone.py).
 */
#include "kernel.h"

#if ON_X86

#include "wide.h"

/* a where the mask has ones, else b. */
ONE __m512i
either(__m512i mask, __m512i a, __m512i b)
{
    return _mm512_ternarylogic_epi32(mask, a, b, 0xca);
}

ONE __m512i
codes_of_lane(const job_t *job, const wide_t *wide, const block_t *codes, int lane,
              const quotients_t *q)
{
    /* Cells are below 2^12: 65536 times as large they are still exact, and in the upper half. */
    const __m512 lower = _mm512_set1_ps(job->how.scale[lane]);
    const __m512 upper = _mm512_mul_ps(lower, _mm512_set1_ps(65536.0f));
    const __m512i half = _mm512_set1_epi32(0xffff), low = _mm512_set1_epi16(0xff);
    const __m512i within = _mm512_set1_epi16((1 << KNOT_BITS) - 1);
    __m512i cell[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        cell[i] = _mm512_cvttps_epi32(_mm512_mul_ps(q->x[i], i < 2 ? lower : upper));
    }
    const __m512i even = either(half, cell[0], cell[2]), odd = either(half, cell[1], cell[3]);
    const __m512i knot =
        either(low, _mm512_srli_epi16(even, KNOT_BITS), _mm512_slli_epi16(odd, 8 - KNOT_BITS));
    const index_t index = index_of(knot);
    const __m512i high_byte = look_up(&wide->knots[lane][0], index);
    const __m512i low_byte = look_up(&wide->knots[lane][1], index);
    const __m512i slope = look_up(&wide->knots[lane][2], index);
    const __m512i rise_even =
        _mm512_mullo_epi16(_mm512_and_si512(slope, low), _mm512_and_si512(even, within));
    const __m512i rise_odd =
        _mm512_mullo_epi16(_mm512_srli_epi16(slope, 8), _mm512_and_si512(odd, within));
    const __m512i start_even = either(low, low_byte, _mm512_slli_epi16(high_byte, 8));
    const __m512i start_odd = either(low, _mm512_srli_epi16(low_byte, 8), high_byte);
    const __m512i found =
        either(low, _mm512_srli_epi16(_mm512_add_epi16(start_even, rise_even), 8),
               _mm512_add_epi16(start_odd, rise_odd));
    if (!any_empty(q)) {
        return found;
    }
    const __m512i special =
        look_up(&wide->special[lane], index_of(sum_counters(wide, codes, lane)));
    __m512i where = _mm512_maskz_set1_epi32(q->empty[0], 0xff);
    where = _mm512_or_si512(where, _mm512_maskz_set1_epi32(q->empty[1], 0xff00));
    where = _mm512_or_si512(where, _mm512_maskz_set1_epi32(q->empty[2], 0xff0000));
    where = _mm512_or_si512(where, _mm512_maskz_set1_epi32(q->empty[3], (int)0xff000000));
    return either(where, special, found);
}

ONE void
codes_of_block(const int numerators, const int weights, const wide_t *wide, const job_t *job,
               const uint8_t *const *frames, uint8_t *out)
{
    block_t codes[MAX_FRAMES] __attribute__((aligned(64)));
    __m512i found[LANES];
    part_lanes(wide, frames, codes);
#pragma GCC unroll 3
    for (int lane = 0; lane < LANES; lane++) {
        const quotients_t q = sum_lane(numerators, weights, wide, codes, lane);
        found[lane] = codes_of_lane(job, wide, codes, lane, &q);
    }
#pragma GCC unroll 3
    for (int i = 0; i < LANES; i++) {
        const __m512i bytes =
            pick(wide->give[i], wide->give_third[i], found[0], found[1], found[2]);
        _mm512_storeu_si512(out + i * WIDTH, bytes);
    }
}

TARGET void
wide_codes(const wide_t *wide, const job_t *job, ptrdiff_t start, ptrdiff_t n, uint8_t *out)
{
    uint8_t room[MAX_FRAMES][BLOCK], last[BLOCK];
    const uint8_t *frames[MAX_FRAMES];
    for (ptrdiff_t done = 0; done < n; done += BLOCK) {
        const ptrdiff_t some = n - done < BLOCK ? n - done : BLOCK;
        uint8_t *target = some < BLOCK ? last : out + done;
        place_frames(job, start + done, some, room, frames);
        if (wide->weights > 1) {
            codes_of_block(4, 4, wide, job, frames, target);
        } else if (wide->numerators > 3) {
            codes_of_block(4, 1, wide, job, frames, target);
        } else {
            codes_of_block(3, 1, wide, job, frames, target);
        }
        if (some < BLOCK) {
            memcpy(out + done, last, (size_t)some);
        }
    }
}

#endif
