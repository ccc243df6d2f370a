/* The tables of wide sums: words taken apart into planes of bytes. */
#include "kernel.h"

#if ON_X86

#include <stdlib.h>

#include "wide.h"

/* One byte of each word. */
TARGET static void
slice(const uint64_t *words, int shift, uint64_t mask, table_t *table)
{
    uint8_t *bytes = table->part[0];
    for (int z = 0; z < 256; z++) {
        bytes[z] = (uint8_t)((words[z] & mask) >> shift);
    }
}

/* Where each byte of three registers goes when samples are parted into lanes, and back. */
static void
set_orders(wide_t *wide)
{
    for (int i = 0; i < LANES; i++) {
        for (int j = 0; j < WIDTH; j++) {
            const int sample = j * LANES + i, from = i * WIDTH + j;
            const int place = from % LANES * WIDTH + from / LANES;
            wide->take[i][0][j] = wide->take[i][1][j] = (uint8_t)(sample % 128);
            wide->give[i][0][j] = wide->give[i][1][j] = (uint8_t)(place % 128);
            wide->take_third[i] |= (uint64_t)(sample >= 128) << j;
            wide->give_third[i] |= (uint64_t)(place >= 128) << j;
        }
        for (int j = 0; j < WORDS; j++) {
            const int from = i * WORDS + j, place = from % LANES * WORDS + from / LANES;
            wide->give_words[i][0][j] = wide->give_words[i][1][j] = place % 32;
            wide->give_third_word[i] |= (uint16_t)((place >= 32) << j);
        }
    }
}

static void
set_codes(wide_t *wide, const job_t *job, const codes_t *to)
{
    if (!to || !to->knots || to->edges || to->itemsize != 1 ||
        job->how.count != KNOTS << KNOT_BITS) {
        return;
    }
    memcpy(wide->knots, to->knots, sizeof(wide->knots));
    for (int lane = 0; lane < LANES; lane++) {
        const uint8_t *cells = (const uint8_t *)to->cells + lane * to->width + job->how.count;
        memcpy(wide->special[lane].part, cells, (size_t)(to->width - job->how.count));
    }
    wide->has_codes = 1;
}

wide_t *
wide_open(const job_t *job, const codes_t *to)
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
    size_t bytes = sizeof(wide_t) + sizeof(table_t) * (size_t)(tables * (planes + 1));
    wide_t *wide = aligned_alloc(WIDTH, (bytes + WIDTH - 1) / WIDTH * WIDTH);
    if (!wide) {
        return NULL;
    }
    memset(wide, 0, sizeof(*wide));
    wide->count = job->count;
    wide->numerators = numerators;
    wide->weights = weights;
    wide->counters = wide->planes + tables * planes;
    for (int i = 0; i < tables; i++) {
        table_t *table = wide->planes + i * planes;
        for (int p = 0; p < numerators; p++) {
            slice(words + i * 256, 32 + 8 * p, ~(uint64_t)0, table++);
        }
        for (int p = 0; p < weights; p++) {
            slice(words + i * 256, 8 * p, weight_mask, table++);
        }
        slice(words + i * 256, weight_bits, 0xffffffff & ~weight_mask, &wide->counters[i]);
    }
    set_orders(wide);
    set_codes(wide, job, to);
    return wide;
}

void
wide_close(wide_t *wide)
{
    free(wide);
}

int
wide_has_codes(const wide_t *wide)
{
    return wide->has_codes;
}

TARGET __m512i
sum_counters(const wide_t *wide, const block_t *codes, int lane)
{
    __m512i total = _mm512_setzero_si512();
    for (int k = 0; k < wide->count; k++) {
        const index_t index = index_of(_mm512_load_si512(codes[k][lane]));
        total = _mm512_add_epi8(total, look_up(&wide->counters[k * LANES + lane], index));
    }
    return total;
}

#endif
