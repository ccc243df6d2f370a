/* From cells and x to the results: codes of 8 or 16 bits, half floats, or ln E and validity. */
#include <string.h>

#include "kernel.h"

enum { PERIOD = 8 * LANES }; /* after which lanes and vectors start again */

static avx512_t *
open_avx512(const job_t *job, const codes_t *to)
{
#if ON_X86
    return avx512_open(job, to);
#else
    (void)job;
    (void)to;
    return NULL;
#endif
}

static void
close_avx512(avx512_t *avx512)
{
#if ON_X86
    avx512_close(avx512);
#else
    (void)avx512;
#endif
}

/* Cells of a chunk, by the best instructions that the machine and the job allow. */
static void
find_cells(const avx512_t *avx512, const job_t *job, ptrdiff_t start, ptrdiff_t n, float *x,
           int32_t *cell)
{
#if ON_X86
    if (avx512) {
        avx512_cells(avx512, job, start, n, x, cell);
        return;
    }
#endif
    (void)avx512;
    sum_cells(job, start, n, x, cell);
}

/* The part of a row that is merged, or all rows at once where there are no spans. */
typedef struct {
    ptrdiff_t row, from, end; /* samples, from the row's beginning */
} run_t;

static int
next_run(const job_t *job, run_t *run)
{
    const int joined = !job->spans && job->samples % LANES == 0;
    run->row = run->row < job->first ? job->first : joined ? job->last : run->row + 1;
    if (run->row >= job->last) {
        return 0;
    }
    run->from = job->spans ? job->spans[2 * run->row] : 0;
    run->end = job->spans ? job->spans[2 * run->row + 1] : job->samples;
    if (joined) {
        run->end = (job->last - job->first) * job->samples;
    }
    return 1;
}

static void
write_8(const codes_t *to, const int32_t *cell, ptrdiff_t n, uint8_t *out)
{
    const uint8_t *row[LANES];
    for (int lane = 0; lane < LANES; lane++) {
        row[lane] = (const uint8_t *)to->cells + lane * to->width;
    }
    ptrdiff_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        out[i] = row[0][cell[i]];
        out[i + 1] = row[1][cell[i + 1]];
        out[i + 2] = row[2][cell[i + 2]];
    }
    for (int lane = 0; i < n; i++, lane++) {
        out[i] = row[lane][cell[i]];
    }
}

static void
write_8_exact(const codes_t *to, const reading_t *how, const int32_t *cell, const float *x,
              ptrdiff_t n, uint8_t *out)
{
    for (ptrdiff_t i = 0, lane = 0; i < n; i++) {
        uint32_t code = ((const uint8_t *)to->cells)[lane * to->width + cell[i]];
        if (cell[i] < how->count) {
            const float *edge = to->edges + lane * 257;
            while (x[i] >= edge[code + 1]) {
                code++;
            }
        }
        out[i] = (uint8_t)code;
        lane = lane == LANES - 1 ? 0 : lane + 1;
    }
}

static void
write_16(const codes_t *to, const reading_t *how, const int32_t *cell, const float *x, ptrdiff_t n,
         uint16_t *out)
{
    for (ptrdiff_t i = 0, lane = 0; i < n; i++) {
        uint32_t code = ((const uint16_t *)to->cells)[lane * to->width + cell[i]];
        if (to->edges && cell[i] < how->count) {
            const float *edge = to->edges + lane * 65537;
            while (x[i] >= edge[code + 1]) {
                code++;
            }
        }
        out[i] = (uint16_t)code;
        lane = lane == LANES - 1 ? 0 : lane + 1;
    }
}

static void
blacken_outside(const job_t *job, const run_t *run, int itemsize, uint8_t *row)
{
    if (job->spans) {
        memset(row, 0, (size_t)(run->from * itemsize));
        memset(row + run->end * itemsize, 0, (size_t)((job->samples - run->end) * itemsize));
    }
}

static void
write_chunk(const avx512_t *avx512, const job_t *job, const codes_t *to, ptrdiff_t start,
            ptrdiff_t n, uint8_t *out)
{
    float x[CHUNK + PAD];
    int32_t cell[CHUNK + PAD];
    find_cells(avx512, job, start, n, to->edges ? x : NULL, cell);
    if (to->itemsize == 1 && to->edges) {
        write_8_exact(to, &job->how, cell, x, n, out);
    } else if (to->itemsize == 1) {
        write_8(to, cell, n, out);
    } else {
        write_16(to, &job->how, cell, x, n, (uint16_t *)out);
    }
}

static void
write_piece(const avx512_t *avx512, const piece_t *piece, const codes_t *to, uint8_t *out)
{
#if ON_X86
    if (avx512 && avx512_has_codes(avx512)) {
        avx512_codes(avx512, piece->job, piece->start, piece->n, out);
        return;
    }
#endif
    for (ptrdiff_t at = 0; at < piece->n; at += CHUNK) {
        const ptrdiff_t n = piece->n - at < CHUNK ? piece->n - at : CHUNK;
        write_chunk(avx512, piece->job, to, piece->start + at, n, out + at * to->itemsize);
    }
}

void
run_codes(const job_t *job, const codes_t *to)
{
    piece_t piece;
    piece.job = NULL;
    avx512_t *avx512 = open_avx512(job, to);
    for (run_t run = {.row = -1}; next_run(job, &run);) {
        uint8_t *row = to->out + (run.row - job->first) * job->samples * to->itemsize;
        const ptrdiff_t begin = run.row * job->samples;
        blacken_outside(job, &run, to->itemsize, row);
        for (piece.at = run.from, piece.n = 0; next_piece(job, begin, run.end, &piece);) {
            write_piece(avx512, &piece, to, row + piece.at * to->itemsize);
        }
    }
    close_avx512(avx512);
}

/* Samples of one channel; cells come in steps of `channels`. */
static void
write_half_channel(const half_t *to, int channel, const int32_t *cell, ptrdiff_t n,
                   ptrdiff_t pixel)
{
    const uint16_t *row = to->cells + channel * to->width, under = to->under[channel];
    uint16_t *plane = to->planes + channel * to->plane + pixel;
    uint8_t *validity = to->validity + channel * to->plane + pixel;
    for (ptrdiff_t i = 0; i < n; i++) {
        const uint16_t code = row[cell[i * to->channels]];
        plane[i] = code & 0x7fff;
        validity[i] = (uint8_t)((code >> 15 << 1) - (code == under)); /* 2, less one if "under" */
    }
}

static void
darken_half(const half_t *to, ptrdiff_t pixel, ptrdiff_t n)
{
    for (int channel = 0; channel < to->channels; channel++) {
        const ptrdiff_t from = channel * to->plane + pixel;
        for (ptrdiff_t i = from; i < from + n; i++) {
            to->planes[i] = to->under[channel] & 0x7fff;
            to->validity[i] = 1;
        }
    }
}

void
run_half(const job_t *job, const half_t *to)
{
    int32_t cell[CHUNK + PAD];
    piece_t piece;
    piece.job = NULL;
    avx512_t *avx512 = open_avx512(job, NULL);
    for (run_t run = {.row = -1}; next_run(job, &run);) {
        const ptrdiff_t begin = run.row * job->samples, pixel = begin / to->channels;
        if (job->spans) {
            darken_half(to, pixel, run.from / to->channels);
            darken_half(to, pixel + run.end / to->channels,
                        (job->samples - run.end) / to->channels);
        }
        for (piece.at = run.from, piece.n = 0; next_piece(job, begin, run.end, &piece);) {
            for (ptrdiff_t at = 0; at < piece.n; at += CHUNK) {
                const ptrdiff_t n = piece.n - at < CHUNK ? piece.n - at : CHUNK;
                find_cells(avx512, piece.job, piece.start + at, n, NULL, cell);
                for (int channel = 0; channel < to->channels; channel++) {
                    write_half_channel(to, channel, cell + channel, n / to->channels,
                                       pixel + (piece.at + at) / to->channels);
                }
            }
        }
    }
    close_avx512(avx512);
}

static void
write_radiance(const job_t *job, const radiance_t *to, const float *x, const int32_t *cell,
               ptrdiff_t n, float *ln_radiance, uint8_t *validity)
{
    /* One period of each lane's values, so that the compiler sees plain vectors. */
    float unit[PERIOD], offset[PERIOD], most[PERIOD];
    for (int j = 0; j < PERIOD; j++) {
        unit[j] = to->unit[j % LANES];
        offset[j] = to->offset[j % LANES];
        most[j] = to->maximum[j % LANES];
    }
    ptrdiff_t i = 0;
    for (; i + PERIOD <= n; i += PERIOD) {
        for (int j = 0; j < PERIOD; j++) {
            const float value = x[i + j] * unit[j] + offset[j];
            ln_radiance[i + j] = value < most[j] ? value : most[j];
        }
    }
    for (int j = 0; i + j < n; j++) {
        const float value = x[i + j] * unit[j] + offset[j];
        ln_radiance[i + j] = value < most[j] ? value : most[j];
    }
    memset(validity, 0, (size_t)n);
    for (i = 0; i < n; i++) {
        const int32_t counters = cell[i] - job->how.count;
        if (counters >= 0) {
            ln_radiance[i] = to->special[(i % LANES) * to->specials + counters];
            validity[i] = to->flags[counters];
        }
    }
}

void
run_radiance(const job_t *job, const radiance_t *to)
{
    float x[CHUNK + PAD];
    int32_t cell[CHUNK + PAD];
    piece_t piece;
    piece.job = NULL;
    avx512_t *avx512 = open_avx512(job, NULL);
    for (run_t run = {.row = -1}; next_run(job, &run);) {
        const ptrdiff_t row = (run.row - job->first) * job->samples;
        const ptrdiff_t begin = run.row * job->samples;
        for (piece.at = run.from, piece.n = 0; next_piece(job, begin, run.end, &piece);) {
            for (ptrdiff_t at = 0; at < piece.n; at += CHUNK) {
                const ptrdiff_t n = piece.n - at < CHUNK ? piece.n - at : CHUNK;
                const ptrdiff_t to_sample = row + piece.at + at;
                find_cells(avx512, piece.job, piece.start + at, n, x, cell);
                write_radiance(job, to, x, cell, n, to->ln_radiance + to_sample,
                               to->validity + to_sample);
            }
        }
    }
    close_avx512(avx512);
}
