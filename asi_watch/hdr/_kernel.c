/* The merge of a bracket in one pass over its exposures.
 *
 * Per sample and exposure: one look-up of a 64-bit word and one addition. Upper half of a sum:
 * weighted numerator; lower half: weight, and above it two small counters that decide the
 * fallbacks (see _tables.py, which makes the words). x = numerator / weight is then the index of
 * a code table, or becomes ln E.
 *
 * numpy in _engine.py does the same arithmetic, to the byte: integer sums, and single-precision
 * conversion, division and multiplication, each rounded once. Therefore never compile this file
 * with -ffast-math, and keep -ffp-contract=off.
 *
 * Only the stable ABI of CPython 3.11 and the buffer protocol are used; no numpy headers.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define WITH_AVX2 1
#else
#define WITH_AVX2 0
#endif

#if defined(__BYTE_ORDER__) && defined(__ORDER_LITTLE_ENDIAN__)
#define WIDE_LOADS (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__)
#else
#define WIDE_LOADS 0
#endif

#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline))
#else
#define INLINE static inline
#endif

enum {
    LANES = 3,
    PERIOD = 8 * LANES, /* after which lanes and eight-byte words both begin anew */
    MAX_FRAMES = 64,
    CHUNK = 1536, /* samples whose sums stay in the first-level cache; whole periods */
    PAD = 8,
    PASS = 6, /* exposures summed in registers at a time */
};

typedef const uint64_t (*tables_t)[LANES][256];

/* ---- sums ------------------------------------------------------------------------------- */

INLINE void
sum_some(const int count, const int fresh, const uint8_t *const *frame, tables_t table,
         uint64_t *sum, Py_ssize_t n)
{
    const uint8_t *f[PASS];
    for (int k = 0; k < count; k++) {
        f[k] = frame[k];
    }
    Py_ssize_t i = 0;
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
sum_frames(const uint8_t *const *frames, int count, Py_ssize_t start, tables_t tables,
           uint64_t *sum, Py_ssize_t n)
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
    for (Py_ssize_t i = n; i < n + PAD; i++) {
        sum[i] = 1; /* what is read beyond the end by whole vectors: weight 1, x = 0 */
    }
}

/* ---- x and cells ------------------------------------------------------------------------ */

typedef struct {
    float scale[LANES];
    uint32_t weight_mask;
    int weight_bits;
    int32_t count; /* cells, before the codes of the counters */
} reading_t;

/* x is written only where it is wanted, that is not NULL. */
static void
cells_plain(const uint64_t *sum, Py_ssize_t n, const reading_t *how, float *x, int32_t *cell)
{
    for (Py_ssize_t i = 0, lane = 0; i < n; i++) {
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

#if WITH_AVX2
/* Unsigned to float in one rounding: both halves are exact, their sum is rounded. */
__attribute__((target("avx2"))) static inline __m256
float_of(__m256i value)
{
    const __m256 high = _mm256_cvtepi32_ps(_mm256_srli_epi32(value, 16));
    const __m256 low = _mm256_cvtepi32_ps(_mm256_and_si256(value, _mm256_set1_epi32(0xffff)));
    return _mm256_add_ps(_mm256_mul_ps(high, _mm256_set1_ps(65536.0f)), low);
}

__attribute__((target("avx2"))) INLINE void
cells_some(const int want_x, const uint64_t *sum, Py_ssize_t n, const reading_t *how, float *x, int32_t *cell)
{
    /* Samples 0 1 4 5 2 3 6 7: the order in which shuffles split eight words, undone at the end. */
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
    for (Py_ssize_t i = 0; i < n; i += 8) {
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
cells_avx2(const uint64_t *sum, Py_ssize_t n, const reading_t *how, float *x, int32_t *cell)
{
    if (x) {
        cells_some(1, sum, n, how, x, cell);
    } else {
        cells_some(0, sum, n, how, x, cell);
    }
}

static int has_avx2 = 0;
#endif

static void
find_cells(const uint64_t *sum, Py_ssize_t n, const reading_t *how, float *x, int32_t *cell)
{
#if WITH_AVX2
    if (has_avx2) {
        cells_avx2(sum, n, how, x, cell);
        return;
    }
#endif
    cells_plain(sum, n, how, x, cell);
}

/* ---- outputs ---------------------------------------------------------------------------- */

typedef struct {
    const uint8_t *frames[MAX_FRAMES];
    int count;
    tables_t tables;
    const int32_t *spans; /* first and last sample of each row, or NULL */
    Py_ssize_t first, last, samples;
    reading_t how;
} job_t;

typedef struct {
    const void *cells;
    const float *edges; /* LANES rows of 2^bits + 1, or NULL */
    Py_ssize_t width;   /* entries of a row of cells */
    int itemsize;
    uint8_t *out;
} codes_t;

static void
write_8(const codes_t *to, const int32_t *cell, Py_ssize_t n, uint8_t *out)
{
    const uint8_t *row[LANES];
    for (int lane = 0; lane < LANES; lane++) {
        row[lane] = (const uint8_t *)to->cells + lane * to->width;
    }
    Py_ssize_t i = 0;
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
              Py_ssize_t n, uint8_t *out)
{
    for (Py_ssize_t i = 0, lane = 0; i < n; i++) {
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
write_16(const codes_t *to, const reading_t *how, const int32_t *cell, const float *x,
         Py_ssize_t n, uint16_t *out)
{
    for (Py_ssize_t i = 0, lane = 0; i < n; i++) {
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
run_codes(const job_t *job, const codes_t *to)
{
    uint64_t sum[CHUNK + PAD];
    float x[CHUNK + PAD];
    int32_t cell[CHUNK + PAD];
    for (Py_ssize_t row = job->first; row < job->last; row++) {
        Py_ssize_t from = 0, end = job->samples;
        uint8_t *out = to->out + (row - job->first) * job->samples * to->itemsize;
        if (job->spans) {
            from = job->spans[2 * row];
            end = job->spans[2 * row + 1];
            memset(out, 0, (size_t)(from * to->itemsize));
            memset(out + end * to->itemsize, 0, (size_t)((job->samples - end) * to->itemsize));
        }
        for (Py_ssize_t start = from; start < end; start += CHUNK) {
            const Py_ssize_t n = end - start < CHUNK ? end - start : CHUNK;
            sum_frames(job->frames, job->count, row * job->samples + start, job->tables, sum, n);
            find_cells(sum, n, &job->how, to->edges ? x : NULL, cell);
            if (to->itemsize == 1 && to->edges) {
                write_8_exact(to, &job->how, cell, x, n, out + start);
            } else if (to->itemsize == 1) {
                write_8(to, cell, n, out + start);
            } else {
                write_16(to, &job->how, cell, x, n, (uint16_t *)out + start);
            }
        }
    }
}

typedef struct {
    const float *unit, *offset, *maximum; /* LANES each */
    const float *special;                 /* LANES rows, one entry per value of the counters */
    const uint8_t *flags;                 /* per value of the counters */
    Py_ssize_t specials;
    float *ln_radiance;
    uint8_t *validity;
} radiance_t;

static void
write_radiance(const job_t *job, const radiance_t *to, const float *x, const int32_t *cell,
               Py_ssize_t n, float *ln_radiance, uint8_t *validity)
{
    /* One period of each lane's values, so that the compiler sees plain vectors. */
    float unit[PERIOD], offset[PERIOD], most[PERIOD];
    for (int j = 0; j < PERIOD; j++) {
        unit[j] = to->unit[j % LANES];
        offset[j] = to->offset[j % LANES];
        most[j] = to->maximum[j % LANES];
    }
    Py_ssize_t i = 0;
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

static void
run_radiance(const job_t *job, const radiance_t *to)
{
    uint64_t sum[CHUNK + PAD];
    float x[CHUNK + PAD];
    int32_t cell[CHUNK + PAD];
    for (Py_ssize_t row = job->first; row < job->last; row++) {
        Py_ssize_t from = 0, end = job->samples;
        if (job->spans) {
            from = job->spans[2 * row];
            end = job->spans[2 * row + 1];
        }
        float *ln_radiance = to->ln_radiance + (row - job->first) * job->samples;
        uint8_t *validity = to->validity + (row - job->first) * job->samples;
        for (Py_ssize_t start = from; start < end; start += CHUNK) {
            const Py_ssize_t n = end - start < CHUNK ? end - start : CHUNK;
            sum_frames(job->frames, job->count, row * job->samples + start, job->tables, sum, n);
            find_cells(sum, n, &job->how, x, cell);
            write_radiance(job, to, x, cell, n, ln_radiance + start, validity + start);
        }
    }
}

/* ---- Python's side: every buffer is measured before anything is read -------------------- */

enum { MAX_VIEWS = MAX_FRAMES + 12 };

typedef struct {
    Py_buffer view[MAX_VIEWS];
    int count;
} views_t;

static void
release(views_t *views)
{
    while (views->count > 0) {
        PyBuffer_Release(&views->view[--views->count]);
    }
}

/* Address of a contiguous buffer of exactly `bytes` bytes (any length if negative), or NULL with
 * an exception. */
static void *
take(views_t *views, PyObject *object, Py_ssize_t bytes, int writable, const char *what)
{
    Py_buffer *view = &views->view[views->count];
    if (PyObject_GetBuffer(object, view, writable ? PyBUF_CONTIG : PyBUF_CONTIG_RO) < 0) {
        return NULL;
    }
    views->count++;
    if (bytes >= 0 && view->len != bytes) {
        PyErr_Format(PyExc_ValueError, "%s: %zd bytes where %zd are needed", what, view->len,
                     bytes);
        return NULL;
    }
    return view->buf;
}

static Py_ssize_t
last_length(const views_t *views)
{
    return views->view[views->count - 1].len;
}

/* Read the arguments that both functions share. */
static int
take_job(views_t *views, job_t *job, PyObject *frames, PyObject *words, int weight_bits,
         PyObject *spans)
{
    const Py_ssize_t count = PyTuple_Check(frames) ? PyTuple_Size(frames) : 0;
    if (count < 1 || count > MAX_FRAMES) {
        PyErr_SetString(PyExc_ValueError, "frames: a tuple of 1 to 64 buffers");
        return -1;
    }
    if (job->first < 0 || job->last < job->first || job->samples < 1 || weight_bits < 16 ||
        weight_bits > 31) {
        PyErr_SetString(PyExc_ValueError, "rows, samples or weight_bits out of range");
        return -1;
    }
    job->count = (int)count;
    for (Py_ssize_t k = 0; k < count; k++) {
        job->frames[k] = take(views, PyTuple_GetItem(frames, k), -1, 0, "frame");
        if (!job->frames[k]) {
            return -1;
        }
        if (last_length(views) / job->samples < job->last) {
            PyErr_SetString(PyExc_ValueError, "frame: fewer rows than asked for");
            return -1;
        }
    }
    job->tables = take(views, words, count * (Py_ssize_t)sizeof(*job->tables), 0, "words");
    if (!job->tables) {
        return -1;
    }
    job->spans = NULL;
    if (spans != Py_None) {
        job->spans = take(views, spans, -1, 0, "spans");
        if (!job->spans) {
            return -1;
        }
        if (last_length(views) / (Py_ssize_t)(2 * sizeof(int32_t)) < job->last) {
            PyErr_SetString(PyExc_ValueError, "spans: fewer rows than asked for");
            return -1;
        }
        for (Py_ssize_t row = job->first; row < job->last; row++) {
            const int32_t a = job->spans[2 * row], b = job->spans[2 * row + 1];
            if (a < 0 || b < a || b > job->samples) {
                PyErr_SetString(PyExc_ValueError, "spans: out of the row");
                return -1;
            }
        }
    }
    job->how.weight_bits = weight_bits;
    job->how.weight_mask = ((uint32_t)1 << weight_bits) - 1;
    return 0;
}

PyDoc_STRVAR(merge_codes_doc,
             "merge_codes(frames, words, weight_bits, spans, first, last, samples, scale, cells, "
             "count, edges, itemsize, out)\n\nMerge rows first:last into output codes.");

static PyObject *
merge_codes(PyObject *module, PyObject *args)
{
    PyObject *frames, *words, *spans, *scale, *cells, *edges, *out;
    int weight_bits, count, itemsize;
    job_t job;
    codes_t to;
    (void)module;
    if (!PyArg_ParseTuple(args, "OOiOnnnOOiOiO:merge_codes", &frames, &words, &weight_bits,
                          &spans, &job.first, &job.last, &job.samples, &scale, &cells, &count,
                          &edges, &itemsize, &out)) {
        return NULL;
    }
    if (count < 1 || (itemsize != 1 && itemsize != 2)) {
        PyErr_SetString(PyExc_ValueError, "count or itemsize out of range");
        return NULL;
    }
    views_t views;
    views.count = 0;
    PyObject *result = NULL;
    if (take_job(&views, &job, frames, words, weight_bits, spans) < 0) {
        goto done;
    }
    job.how.count = count;
    to.itemsize = itemsize;
    to.width = count + ((Py_ssize_t)1 << (32 - weight_bits));
    const float *scales = take(&views, scale, sizeof(job.how.scale), 0, "scale");
    if (!scales) {
        goto done;
    }
    memcpy(job.how.scale, scales, sizeof(job.how.scale));
    to.cells = take(&views, cells, LANES * to.width * itemsize, 0, "cells");
    if (!to.cells) {
        goto done;
    }
    to.edges = NULL;
    if (edges != Py_None) {
        const Py_ssize_t width = ((Py_ssize_t)1 << (8 * itemsize)) + 1;
        to.edges = take(&views, edges, LANES * width * (Py_ssize_t)sizeof(float), 0, "edges");
        if (!to.edges) {
            goto done;
        }
    }
    to.out = take(&views, out, (job.last - job.first) * job.samples * itemsize, 1, "out");
    if (!to.out) {
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    run_codes(&job, &to);
    Py_END_ALLOW_THREADS
    result = Py_NewRef(Py_None);
done:
    release(&views);
    return result;
}

PyDoc_STRVAR(merge_radiance_doc,
             "merge_radiance(frames, words, weight_bits, spans, first, last, samples, unit, "
             "offset, maximum, special, flags, ln_radiance, validity)\n\n"
             "Merge rows first:last into ln E and validity.");

static PyObject *
merge_radiance(PyObject *module, PyObject *args)
{
    PyObject *frames, *words, *spans, *unit, *offset, *maximum, *special, *flags;
    PyObject *ln_radiance, *validity;
    int weight_bits;
    job_t job;
    radiance_t to;
    (void)module;
    if (!PyArg_ParseTuple(args, "OOiOnnnOOOOOOO:merge_radiance", &frames, &words, &weight_bits,
                          &spans, &job.first, &job.last, &job.samples, &unit, &offset, &maximum,
                          &special, &flags, &ln_radiance, &validity)) {
        return NULL;
    }
    views_t views;
    views.count = 0;
    PyObject *result = NULL;
    if (take_job(&views, &job, frames, words, weight_bits, spans) < 0) {
        goto done;
    }
    job.how.count = 1; /* cells are not used, only where the counters begin */
    memset(job.how.scale, 0, sizeof(job.how.scale));
    const Py_ssize_t three = LANES * (Py_ssize_t)sizeof(float);
    const Py_ssize_t samples = (job.last - job.first) * job.samples;
    to.specials = (Py_ssize_t)1 << (32 - weight_bits);
    if (!(to.unit = take(&views, unit, three, 0, "unit")) ||
        !(to.offset = take(&views, offset, three, 0, "offset")) ||
        !(to.maximum = take(&views, maximum, three, 0, "maximum")) ||
        !(to.special = take(&views, special, three * to.specials, 0, "special")) ||
        !(to.flags = take(&views, flags, to.specials, 0, "flags")) ||
        !(to.ln_radiance = take(&views, ln_radiance, samples * (Py_ssize_t)sizeof(float), 1,
                                "ln_radiance")) ||
        !(to.validity = take(&views, validity, samples, 1, "validity"))) {
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    run_radiance(&job, &to);
    Py_END_ALLOW_THREADS
    result = Py_NewRef(Py_None);
done:
    release(&views);
    return result;
}

static PyMethodDef methods[] = {
    {"merge_codes", merge_codes, METH_VARARGS, merge_codes_doc},
    {"merge_radiance", merge_radiance, METH_VARARGS, merge_radiance_doc},
    {NULL, NULL, 0, NULL},
};

static int
execute(PyObject *module)
{
    int vector = 0;
#if WITH_AVX2
    __builtin_cpu_init();
    /* ASI_WATCH_NO_AVX2 lets the tests see the path of older machines. */
    vector = has_avx2 = __builtin_cpu_supports("avx2") != 0 && !getenv("ASI_WATCH_NO_AVX2");
#endif
    return PyModule_AddIntConstant(module, "HAS_AVX2", vector);
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, execute},
    {0, NULL},
};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "_kernel",
    .m_doc = "The merge of a bracket in one pass over its exposures.",
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC
PyInit__kernel(void)
{
    return PyModuleDef_Init(&definition);
}
