/* Samples of one exposure that contradict another one become code 0, which has no weight.
 *
 * A reference exposure states, by a table, which codes of the frame agree with each of its codes:
 * low to high. Where low is above high it states nothing, and the next reference is asked. Where
 * one of the channels that a reference states is contradicted, all those channels of the pixel are
 * rejected: there the reference has weight, and no sum becomes empty.
 */
#include <string.h>

#include "kernel.h"

INLINE void
reject_pixel(const uint8_t *codes, const uint8_t *reference, const uint16_t (*words)[256],
             const int channels, unsigned *open, uint8_t *out)
{
    unsigned contradicted = 0, stated[LANES];
    for (int c = 0; c < channels; c++) {
        const unsigned found = words[c][reference[c]];
        stated[c] = open[c] & (found != NOTHING_STATED);
        contradicted |= stated[c] & ((uint8_t)(codes[c] - found) > found >> 8);
    }
    for (int c = 0; c < channels; c++) {
        open[c] &= ~stated[c];
        out[c] &= (uint8_t)((stated[c] & contradicted) - 1);
    }
}

INLINE void
reject_some(const uint8_t *frame, const reference_t *references, const int count,
            const int channels, ptrdiff_t from, ptrdiff_t end, uint8_t *out)
{
    for (ptrdiff_t at = from; at < end; at += channels) {
        unsigned open[LANES] = {1, 1, 1};
        for (int c = 0; c < channels; c++) {
            out[at + c] = frame[at + c];
        }
        for (int k = 0; k < count; k++) {
            reject_pixel(frame + at, references[k].frame + at, references[k].words, channels, open,
                         out + at);
        }
    }
}

static void
reject_plain(const uint8_t *frame, const reference_t *references, int count, int channels,
             ptrdiff_t from, ptrdiff_t end, uint8_t *out)
{
    /* The counts are constants to the compiler. */
    switch (channels * count) {
    case 1: reject_some(frame, references, 1, 1, from, end, out); break;
    case 2: reject_some(frame, references, 2, 1, from, end, out); break;
    case 2 * LANES: reject_some(frame, references, 2, LANES, from, end, out); break;
    default: reject_some(frame, references, 1, LANES, from, end, out); break;
    }
}

#if ON_X86

#include <immintrin.h>

#define TARGET512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512vbmi")))
#define INLINE512 TARGET512 INLINE

enum { WIDTH = 64, BLOCK = LANES * WIDTH };

/* Where the bytes of a block of 64 pixels lie: taken apart into channels, and joined again. */
typedef struct {
    uint8_t two[LANES][WIDTH], third[LANES][WIDTH];
    uint64_t in_third[LANES];
} __attribute__((aligned(64))) order_t;

static order_t split, join;

static void
make_orders(void)
{
    for (int lane = 0; lane < LANES; lane++) {
        for (int pixel = 0; pixel < WIDTH; pixel++) {
            const int place = LANES * pixel + lane, part = place / WIDTH, byte = place % WIDTH;
            split.two[lane][pixel] = (uint8_t)(place % (2 * WIDTH));
            split.third[lane][pixel] = (uint8_t)byte;
            split.in_third[lane] |= (uint64_t)(part == 2) << pixel;
            join.two[part][byte] = (uint8_t)(lane % 2 * WIDTH + pixel);
            join.third[part][byte] = (uint8_t)pixel;
            join.in_third[part] |= (uint64_t)(lane == 2) << byte;
        }
    }
}

/* One channel of a block, or one part of a block of three channels. */
INLINE512 __m512i
pick(const order_t *order, int which, const __m512i from[LANES])
{
    const __m512i two =
        _mm512_permutex2var_epi8(from[0], _mm512_load_si512(order->two[which]), from[1]);
    return _mm512_mask_permutexvar_epi8(two, order->in_third[which],
                                        _mm512_load_si512(order->third[which]), from[2]);
}

/* 64 codes looked up in a table of 256 bytes. */
INLINE512 __m512i
look_up_64(const uint8_t *table, __m512i code)
{
    const __m512i lower = _mm512_permutex2var_epi8(_mm512_loadu_si512(table), code,
                                                   _mm512_loadu_si512(table + WIDTH));
    const __m512i upper = _mm512_permutex2var_epi8(_mm512_loadu_si512(table + 2 * WIDTH), code,
                                                   _mm512_loadu_si512(table + 3 * WIDTH));
    return _mm512_mask_blend_epi8(_mm512_movepi8_mask(code), lower, upper);
}

/* Add the samples to be rejected, of one channel or of three. */
INLINE512 void
reject_64(const __m512i *codes, const __m512i *reference, const reference_t *of,
          const int channels, __mmask64 *open, __mmask64 *rejected)
{
    __mmask64 contradicted = 0, stated[LANES];
    for (int c = 0; c < channels; c++) {
        const __m512i low = look_up_64(of->range[c][0], reference[c]);
        const __m512i high = look_up_64(of->range[c][1], reference[c]);
        stated[c] = open[c] & _mm512_cmple_epu8_mask(low, high);
        contradicted |= stated[c] & (_mm512_cmplt_epu8_mask(codes[c], low) |
                                     _mm512_cmpgt_epu8_mask(codes[c], high));
    }
    for (int c = 0; c < channels; c++) {
        open[c] &= ~stated[c];
        rejected[c] |= stated[c] & contradicted;
    }
}

TARGET512 static ptrdiff_t
reject_colour_512(const uint8_t *frame, const reference_t *references, int count, ptrdiff_t n,
                  uint8_t *out)
{
    ptrdiff_t at = 0;
    for (; at + BLOCK <= n; at += BLOCK) {
        __m512i block[LANES], codes[LANES], other[LANES], reference[LANES];
        for (int i = 0; i < LANES; i++) {
            block[i] = _mm512_loadu_si512(frame + at + i * WIDTH);
        }
        for (int c = 0; c < LANES; c++) {
            codes[c] = pick(&split, c, block);
        }
        __mmask64 rejected[LANES] = {0}, open[LANES] = {~0ULL, ~0ULL, ~0ULL};
        for (int k = 0; k < count; k++) {
            for (int i = 0; i < LANES; i++) {
                other[i] = _mm512_loadu_si512(references[k].frame + at + i * WIDTH);
            }
            for (int c = 0; c < LANES; c++) {
                reference[c] = pick(&split, c, other);
            }
            reject_64(codes, reference, references + k, LANES, open, rejected);
        }
        for (int c = 0; c < LANES; c++) {
            codes[c] = _mm512_maskz_mov_epi8(~rejected[c], codes[c]);
        }
        for (int i = 0; i < LANES; i++) {
            _mm512_storeu_si512(out + at + i * WIDTH, pick(&join, i, codes));
        }
    }
    return at;
}

TARGET512 static ptrdiff_t
reject_grey_512(const uint8_t *frame, const reference_t *references, int count, ptrdiff_t n,
                uint8_t *out)
{
    ptrdiff_t at = 0;
    for (; at + WIDTH <= n; at += WIDTH) {
        const __m512i codes = _mm512_loadu_si512(frame + at);
        __mmask64 rejected = 0, open = ~0ULL;
        for (int k = 0; k < count; k++) {
            const __m512i reference = _mm512_loadu_si512(references[k].frame + at);
            reject_64(&codes, &reference, references + k, 1, &open, &rejected);
        }
        _mm512_storeu_si512(out + at, _mm512_maskz_mov_epi8(~rejected, codes));
    }
    return at;
}

#endif

void
prepare_deghost(void)
{
#if ON_X86
    make_orders();
#endif
}

static void
reject(const uint8_t *frame, const reference_t *references, int count, int channels, ptrdiff_t n,
       uint8_t *out)
{
    ptrdiff_t done = 0;
#if ON_X86
    if (vectors >= AVX512) {
        done = channels == 1 ? reject_grey_512(frame, references, count, n, out)
                             : reject_colour_512(frame, references, count, n, out);
    }
#endif
    reject_plain(frame, references, count, channels, done, n, out);
}

int
next_piece(const job_t *job, ptrdiff_t begin, ptrdiff_t end, piece_t *piece)
{
    piece->at += piece->n;
    piece->n = end - piece->at;
    if (piece->n <= 0) {
        return 0;
    }
    if (!job->compared) {
        piece->job = job;
        piece->start = begin + piece->at;
        return 1;
    }
    if (piece->job != &piece->own) {
        piece->own = *job;
        piece->job = &piece->own;
    }
    piece->start = 0;
    piece->n = piece->n < PIECE ? piece->n : PIECE;
    const uint8_t **frames = piece->own.frames;
    for (int k = 0; k < job->count; k++) {
        frames[k] = job->frames[k] + begin + piece->at;
    }
    for (int k = 0; k < job->compared; k++) {
        const int32_t *which = job->which[k];
        reference_t references[MAX_REFERENCES];
        for (int r = 0; r < which[1]; r++) {
            references[r].frame = frames[which[2 + r]];
            references[r].range = job->ranges[k * MAX_REFERENCES + r];
            references[r].words = job->words[k * MAX_REFERENCES + r];
        }
        reject(frames[which[0]], references, which[1], job->channels, piece->n,
               piece->rejected[k]);
        frames[which[0]] = piece->rejected[k];
    }
    return 1;
}
