/* Sums of 64 samples at a time, with AVX-512: the same integers as in plain.c.
 *
 * A table of 256 bytes fits four registers, and a permutation (VPERMB) looks up 64 codes in one of
 * them. So the words are split into planes of one byte each, as many as are in use: three or four
 * of the numerator, one or four of the weight. Each plane is summed in 16 bits, for samples of
 * even and odd number, and the planes are put together once per sample instead of once per
 * exposure. The counters, which matter only where the weight is zero, are summed only there.
 */
#include "kernel.h"

#if ON_X86

#include <immintrin.h>
#include <stdlib.h>
#include <string.h>

#define TARGET512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512vbmi,avx512vnni")))
#define INLINE512 TARGET512 INLINE

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

struct avx512 {
    table_t knots[LANES][3]; /* high and low byte of 256 · code, and the slope */
    table_t special[LANES];  /* codes of the counters */
    uint8_t split[LANES][2][WIDTH], join[LANES][2][WIDTH];
    int32_t join_words_order[LANES][2][WORDS];
    uint64_t split_third[LANES], join_third[LANES];
    uint16_t join_third_word[LANES];
    int count, numerators, weights, has_codes;
    table_t *counters; /* one per exposure and lane */
    table_t planes[];  /* numerators, then weights, of each exposure and lane */
};

typedef struct {
    __m512i z;
    __mmask64 bit6, bit7, both;
} index_t;

INLINE512 index_t
index_of(__m512i z)
{
    index_t index = {.z = z};
    index.bit7 = _mm512_movepi8_mask(z);
    index.bit6 = _mm512_movepi8_mask(_mm512_add_epi8(z, z));
    index.both = _kand_mask64(index.bit6, index.bit7);
    return index;
}

INLINE512 __m512i
look_up(const table_t *table, index_t index)
{
    const __m512i *part = (const __m512i *)table->part;
    __m512i found = _mm512_permutexvar_epi8(index.z, part[0]);
    found = _mm512_mask_permutexvar_epi8(found, index.bit6, index.z, part[1]);
    found = _mm512_mask_permutexvar_epi8(found, index.bit7, index.z, part[2]);
    return _mm512_mask_permutexvar_epi8(found, index.both, index.z, part[3]);
}

INLINE512 __m512i
pick_bytes(const uint8_t order[2][WIDTH], uint64_t third, __m512i a, __m512i b, __m512i c)
{
    const __m512i found = _mm512_permutex2var_epi8(a, _mm512_load_si512(order[0]), b);
    return _mm512_mask_permutexvar_epi8(found, third, _mm512_load_si512(order[1]), c);
}

typedef uint8_t block_t[LANES][WIDTH];

INLINE512 void
split_lanes(const avx512_t *self, const uint8_t *const *frames, block_t *codes)
{
    for (int k = 0; k < self->count; k++) {
        const __m512i a = _mm512_loadu_si512(frames[k]);
        const __m512i b = _mm512_loadu_si512(frames[k] + WIDTH);
        const __m512i c = _mm512_loadu_si512(frames[k] + 2 * WIDTH);
#pragma GCC unroll 3
        for (int line = 0; line < LANES; line++) {
            _mm_prefetch((const char *)frames[k] + AHEAD + line * WIDTH, _MM_HINT_T0);
        }
#pragma GCC unroll 3
        for (int lane = 0; lane < LANES; lane++) {
            const __m512i found = pick_bytes(self->split[lane], self->split_third[lane], a, b, c);
            _mm512_store_si512(codes[k][lane], found);
        }
    }
}

/* The counters of a lane; not inlined, so that what is seldom needed takes no registers. */
TARGET512 static __attribute__((noinline)) __m512i
sum_counters(const avx512_t *self, const block_t *codes, int lane)
{
    __m512i total = _mm512_setzero_si512();
    for (int k = 0; k < self->count; k++) {
        const index_t index = index_of(_mm512_load_si512(codes[k][lane]));
        total = _mm512_add_epi8(total, look_up(&self->counters[k * LANES + lane], index));
    }
    return total;
}

/* Of the samples 4 j + 0, 1, 2, 3 of a lane. */
typedef struct {
    __m512 x[4];
    __mmask16 empty[4];
} quotients_t;

/* Parts of two 16-bit sums, as 32-bit integers: of the lower (0) and upper (1) half. */
INLINE512 __m512i
half_of(__m512i sums, int upper)
{
    return upper ? _mm512_srli_epi32(sums, 16) : _mm512_and_si512(sums, _mm512_set1_epi32(0xffff));
}

/* Four planes, or three, put together; 16-bit sums are below 2^15, which VPDPWSSD takes as signed.
 */
INLINE512 __m512i
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

INLINE512 quotients_t
sum_lane(const int numerators, const int weights, const avx512_t *self, const block_t *codes,
         int lane)
{
    const int planes = numerators + weights;
    const __m512i low = _mm512_set1_epi16(0xff);
    __m512i even[MOST_PLANES], odd[MOST_PLANES];
#pragma GCC unroll 8
    for (int p = 0; p < planes; p++) {
        even[p] = odd[p] = _mm512_setzero_si512();
    }
    const table_t *table = self->planes + lane * planes;
    for (int k = 0; k < self->count; k++) {
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

INLINE512 int
any_empty(const quotients_t *q)
{
    return (q->empty[0] | q->empty[1] | q->empty[2] | q->empty[3]) != 0;
}

/* The frames from a sample on; those of an incomplete block are copied to where 192 bytes may be
 * read. */
INLINE void
readable_frames(const job_t *job, ptrdiff_t start, ptrdiff_t n, uint8_t (*scratch)[BLOCK],
                const uint8_t **frames)
{
    for (int k = 0; k < job->count; k++) {
        frames[k] = job->frames[k] + start;
        if (n < BLOCK) {
            memset(scratch[k], 0, BLOCK);
            memcpy(scratch[k], frames[k], (size_t)n);
            frames[k] = scratch[k];
        }
    }
}

/* ---- tables ----------------------------------------------------------------------------------
 */

/* One byte of each word. */
TARGET512 static void
slice(const uint64_t *words, int shift, uint64_t mask, table_t *table)
{
    uint8_t *bytes = table->part[0];
    for (int z = 0; z < 256; z++) {
        bytes[z] = (uint8_t)((words[z] & mask) >> shift);
    }
}

/* Where each byte of three registers goes when samples are split into lanes, and back. */
static void
set_orders(avx512_t *self)
{
    for (int i = 0; i < LANES; i++) {
        for (int j = 0; j < WIDTH; j++) {
            const int sample = j * LANES + i, from = i * WIDTH + j;
            const int place = from % LANES * WIDTH + from / LANES;
            self->split[i][0][j] = self->split[i][1][j] = (uint8_t)(sample % 128);
            self->join[i][0][j] = self->join[i][1][j] = (uint8_t)(place % 128);
            self->split_third[i] |= (uint64_t)(sample >= 128) << j;
            self->join_third[i] |= (uint64_t)(place >= 128) << j;
        }
        for (int j = 0; j < WORDS; j++) {
            const int from = i * WORDS + j, place = from % LANES * WORDS + from / LANES;
            self->join_words_order[i][0][j] = self->join_words_order[i][1][j] = place % 32;
            self->join_third_word[i] |= (uint16_t)((place >= 32) << j);
        }
    }
}

static void
set_codes(avx512_t *self, const job_t *job, const codes_t *to)
{
    if (!to || !to->knots || to->edges || to->itemsize != 1 ||
        job->how.count != KNOTS << KNOT_BITS) {
        return;
    }
    memcpy(self->knots, to->knots, sizeof(self->knots));
    for (int lane = 0; lane < LANES; lane++) {
        const uint8_t *cells = (const uint8_t *)to->cells + lane * to->width + job->how.count;
        memcpy(self->special[lane].part, cells, (size_t)(to->width - job->how.count));
    }
    self->has_codes = 1;
}

avx512_t *
avx512_open(const job_t *job, const codes_t *to)
{
    const int weight_bits = job->how.weight_bits, tables = job->count * LANES;
    if (vectors < AVX512 || weight_bits < 32 - 8) {
        return NULL; /* the sum of the counters must fit a byte */
    }
    const uint64_t *words = job->tables[0][0];
    uint64_t used = 0;
    for (int i = 0; i < tables * 256; i++) {
        used |= words[i];
    }
    const uint64_t weight_mask = job->how.weight_mask;
    const int weights = (used & weight_mask) > 0xff ? WEIGHTS : 1;
    const int numerators = used >> 56 || weights > 1 ? NUMERATORS : NUMERATORS - 1;
    const int planes = numerators + weights;
    size_t bytes = sizeof(avx512_t) + sizeof(table_t) * (size_t)(tables * (planes + 1));
    avx512_t *self = aligned_alloc(WIDTH, (bytes + WIDTH - 1) / WIDTH * WIDTH);
    if (!self) {
        return NULL;
    }
    memset(self, 0, sizeof(*self));
    self->count = job->count;
    self->numerators = numerators;
    self->weights = weights;
    self->counters = self->planes + tables * planes;
    for (int i = 0; i < tables; i++) {
        table_t *table = self->planes + i * planes;
        for (int p = 0; p < numerators; p++) {
            slice(words + i * 256, 32 + 8 * p, ~(uint64_t)0, table++);
        }
        for (int p = 0; p < weights; p++) {
            slice(words + i * 256, 8 * p, weight_mask, table++);
        }
        slice(words + i * 256, weight_bits, 0xffffffff & ~weight_mask, &self->counters[i]);
    }
    set_orders(self);
    set_codes(self, job, to);
    return self;
}

void
avx512_close(avx512_t *self)
{
    free(self);
}

int
avx512_has_codes(const avx512_t *self)
{
    return self->has_codes;
}

/* ---- x and cells, in the order of the samples ------------------------------------------------
 */

/* Words of samples 4 j + 0, 1, 2, 3, in the order of the samples: 16 to a register. */
INLINE512 void
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

/* Words of a block, split into lanes, to where they belong. */
INLINE512 void
join_words(const avx512_t *self, const __m512i (*split)[4], void *out)
{
    for (int quarter = 0; quarter < 4; quarter++) {
#pragma GCC unroll 3
        for (int i = 0; i < LANES; i++) {
            const int32_t (*order)[WORDS] = self->join_words_order[i];
            __m512i words = _mm512_permutex2var_epi32(
                split[0][quarter], _mm512_load_si512(order[0]), split[1][quarter]);
            words = _mm512_mask_permutexvar_epi32(words, self->join_third_word[i],
                                                  _mm512_load_si512(order[1]), split[2][quarter]);
            _mm512_storeu_si512((int32_t *)out + (quarter * LANES + i) * WORDS, words);
        }
    }
}

INLINE512 void
cells_of_lane(const reading_t *how, const avx512_t *self, const block_t *codes, int lane,
              const quotients_t *q, __m512i *cell)
{
    const __m512 scale = _mm512_set1_ps(how->scale[lane]);
    const __m512i count = _mm512_set1_epi32(how->count), last = _mm512_set1_epi32(how->count - 1);
    const __m512i counters =
        any_empty(q) ? sum_counters(self, codes, lane) : _mm512_setzero_si512();
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
INLINE512 void
cells_of_block(const int numerators, const int weights, const avx512_t *self, const job_t *job,
               const uint8_t *const *frames, float *x, int32_t *cell)
{
    block_t codes[MAX_FRAMES] __attribute__((aligned(64)));
    __m512i cells[LANES][4], xs[LANES][4];
    split_lanes(self, frames, codes);
    for (int lane = 0; lane < LANES; lane++) {
        const quotients_t q = sum_lane(numerators, weights, self, codes, lane);
        cells_of_lane(&job->how, self, codes, lane, &q, cells[lane]);
        if (x) {
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) {
                xs[lane][i] = _mm512_castps_si512(q.x[i]);
            }
            sort_words(xs[lane]);
        }
    }
    join_words(self, cells, cell);
    if (x) {
        join_words(self, xs, x);
    }
}

TARGET512 void
avx512_cells(const avx512_t *self, const job_t *job, ptrdiff_t start, ptrdiff_t n, float *x,
             int32_t *cell)
{
    uint8_t scratch[MAX_FRAMES][BLOCK];
    const uint8_t *frames[MAX_FRAMES];
    for (ptrdiff_t done = 0; done < n; done += BLOCK) {
        const ptrdiff_t some = n - done < BLOCK ? n - done : BLOCK;
        float *x_here = x ? x + done : NULL;
        readable_frames(job, start + done, some, scratch, frames);
        if (self->weights > 1) {
            cells_of_block(4, 4, self, job, frames, x_here, cell + done);
        } else if (self->numerators > 3) {
            cells_of_block(4, 1, self, job, frames, x_here, cell + done);
        } else {
            cells_of_block(3, 1, self, job, frames, x_here, cell + done);
        }
    }
}

/* ---- 8-bit codes where the tone curve is smooth: lines in registers, no table in memory ------
 */

/* The code of a cell lies on the line of its knot, one for every 16 cells (see tone.py). */

/* a where the mask has ones, else b. */
INLINE512 __m512i
select_bits(__m512i mask, __m512i a, __m512i b)
{
    return _mm512_ternarylogic_epi32(mask, a, b, 0xca);
}

INLINE512 __m512i
codes_of_lane(const job_t *job, const avx512_t *self, const block_t *codes, int lane,
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
    const __m512i even = select_bits(half, cell[0], cell[2]),
                  odd = select_bits(half, cell[1], cell[3]);
    const __m512i knot = select_bits(low, _mm512_srli_epi16(even, KNOT_BITS),
                                     _mm512_slli_epi16(odd, 8 - KNOT_BITS));
    const index_t index = index_of(knot);
    const __m512i high_byte = look_up(&self->knots[lane][0], index);
    const __m512i low_byte = look_up(&self->knots[lane][1], index);
    const __m512i slope = look_up(&self->knots[lane][2], index);
    const __m512i rise_even =
        _mm512_mullo_epi16(_mm512_and_si512(slope, low), _mm512_and_si512(even, within));
    const __m512i rise_odd =
        _mm512_mullo_epi16(_mm512_srli_epi16(slope, 8), _mm512_and_si512(odd, within));
    const __m512i start_even = select_bits(low, low_byte, _mm512_slli_epi16(high_byte, 8));
    const __m512i start_odd = select_bits(low, _mm512_srli_epi16(low_byte, 8), high_byte);
    const __m512i found =
        select_bits(low, _mm512_srli_epi16(_mm512_add_epi16(start_even, rise_even), 8),
                    _mm512_add_epi16(start_odd, rise_odd));
    if (!any_empty(q)) {
        return found;
    }
    const __m512i special =
        look_up(&self->special[lane], index_of(sum_counters(self, codes, lane)));
    __m512i where = _mm512_maskz_set1_epi32(q->empty[0], 0xff);
    where = _mm512_or_si512(where, _mm512_maskz_set1_epi32(q->empty[1], 0xff00));
    where = _mm512_or_si512(where, _mm512_maskz_set1_epi32(q->empty[2], 0xff0000));
    where = _mm512_or_si512(where, _mm512_maskz_set1_epi32(q->empty[3], (int)0xff000000));
    return select_bits(where, special, found);
}

INLINE512 void
codes_of_block(const int numerators, const int weights, const avx512_t *self, const job_t *job,
               const uint8_t *const *frames, uint8_t *out)
{
    block_t codes[MAX_FRAMES] __attribute__((aligned(64)));
    __m512i found[LANES];
    split_lanes(self, frames, codes);
#pragma GCC unroll 3
    for (int lane = 0; lane < LANES; lane++) {
        const quotients_t q = sum_lane(numerators, weights, self, codes, lane);
        found[lane] = codes_of_lane(job, self, codes, lane, &q);
    }
#pragma GCC unroll 3
    for (int i = 0; i < LANES; i++) {
        const __m512i bytes =
            pick_bytes(self->join[i], self->join_third[i], found[0], found[1], found[2]);
        _mm512_storeu_si512(out + i * WIDTH, bytes);
    }
}

TARGET512 void
avx512_codes(const avx512_t *self, const job_t *job, ptrdiff_t start, ptrdiff_t n, uint8_t *out)
{
    uint8_t scratch[MAX_FRAMES][BLOCK], last[BLOCK];
    const uint8_t *frames[MAX_FRAMES];
    for (ptrdiff_t done = 0; done < n; done += BLOCK) {
        const ptrdiff_t some = n - done < BLOCK ? n - done : BLOCK;
        uint8_t *target = some < BLOCK ? last : out + done;
        readable_frames(job, start + done, some, scratch, frames);
        if (self->weights > 1) {
            codes_of_block(4, 4, self, job, frames, target);
        } else if (self->numerators > 3) {
            codes_of_block(4, 1, self, job, frames, target);
        } else {
            codes_of_block(3, 1, self, job, frames, target);
        }
        if (some < BLOCK) {
            memcpy(out + done, last, (size_t)some);
        }
    }
}

#endif
