/* What Python sees of the kernel: every buffer is measured before anything is read.
 *
 * Only the stable ABI of CPython 3.11 and the buffer protocol are used; no numpy headers.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <string.h>

#include "kernel.h"

enum { MAX_VIEWS = MAX_FRAMES + 16 };

/* Buffers that are held and must be released. */
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

/* Bytes of the buffer taken last. */
static Py_ssize_t
last_length(const views_t *views)
{
    return views->view[views->count - 1].len;
}

/* Which frames lose samples, by which references: (channels, which, ranges, words), or None. */
static int
take_comparisons(views_t *views, job_t *job, PyObject *compare)
{
    job->compared = 0;
    if (compare == Py_None) {
        return 0;
    }
    PyObject *which, *ranges, *words;
    if (!PyArg_ParseTuple(compare, "iOOO:compare", &job->channels, &which, &ranges, &words)) {
        return -1;
    }
    if (!(job->which = take(views, which, -1, 0, "which"))) {
        return -1;
    }
    const Py_ssize_t row = (Py_ssize_t)sizeof(*job->which), count = last_length(views) / row;
    const Py_ssize_t tables = count * MAX_REFERENCES;
    if (last_length(views) % row || count >= MAX_FRAMES ||
        (job->channels != 1 && job->channels != LANES) || job->samples % job->channels) {
        PyErr_SetString(PyExc_ValueError, "compare: rows or channels out of range");
        return -1;
    }
    for (Py_ssize_t k = 0; k < count; k++) {
        const int32_t *one = job->which[k];
        int fits = one[0] >= 0 && one[0] < job->count && one[1] >= 1 && one[1] <= MAX_REFERENCES;
        for (int r = 0; fits && r < one[1]; r++) {
            fits = one[2 + r] >= 0 && one[2 + r] < job->count;
        }
        if (!fits) {
            PyErr_SetString(PyExc_ValueError, "compare: a frame out of range");
            return -1;
        }
    }
    if (!(job->ranges =
              take(views, ranges, tables * (Py_ssize_t)sizeof(*job->ranges), 0, "ranges")) ||
        !(job->words = take(views, words, tables * (Py_ssize_t)sizeof(*job->words), 0, "words"))) {
        return -1;
    }
    job->compared = (int)count;
    return 0;
}

/* Read the arguments that all merges share; -1 with an exception. */
static int
take_job(views_t *views, job_t *job, PyObject *frames, PyObject *words, int weight_bits,
         PyObject *spans, PyObject *compare)
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
    return take_comparisons(views, job, compare);
}

/* The table of cells, and how x finds its place in it; NULL with an exception. */
static const void *
take_cells(views_t *views, reading_t *how, PyObject *scale, PyObject *cells, int count,
           int itemsize, ptrdiff_t *width)
{
    how->count = count;
    *width = count + ((ptrdiff_t)1 << (32 - how->weight_bits));
    const float *scales = take(views, scale, sizeof(how->scale), 0, "scale");
    if (!scales) {
        return NULL;
    }
    memcpy(how->scale, scales, sizeof(how->scale));
    return take(views, cells, LANES * *width * itemsize, 0, "cells");
}

PyDoc_STRVAR(
    merge_codes_doc,
    "merge_codes(frames, words, weight_bits, spans, compare, first, last, samples, scale, cells, "
    "count, edges, knots, itemsize, out)\n\nMerge rows first:last into output codes.");

static PyObject *
merge_codes(PyObject *module, PyObject *args)
{
    PyObject *frames, *words, *spans, *compare, *scale, *cells, *edges, *knots, *out;
    int weight_bits, count, itemsize;
    job_t job;
    codes_t to;
    (void)module;
    if (!PyArg_ParseTuple(args, "OOiOOnnnOOiOOiO:merge_codes", &frames, &words, &weight_bits,
                          &spans, &compare, &job.first, &job.last, &job.samples, &scale, &cells,
                          &count, &edges, &knots, &itemsize, &out)) {
        return NULL;
    }
    if (count < 1 || (itemsize != 1 && itemsize != 2)) {
        PyErr_SetString(PyExc_ValueError, "count or itemsize out of range");
        return NULL;
    }
    views_t views;
    views.count = 0;
    PyObject *result = NULL;
    if (take_job(&views, &job, frames, words, weight_bits, spans, compare) < 0) {
        goto done;
    }
    to.itemsize = itemsize;
    to.cells = take_cells(&views, &job.how, scale, cells, count, itemsize, &to.width);
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
    to.knots = NULL;
    if (knots != Py_None) {
        to.knots = take(&views, knots, LANES * KNOT_BYTES, 0, "knots");
        if (!to.knots) {
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

PyDoc_STRVAR(
    merge_half_doc,
    "merge_half(frames, words, weight_bits, spans, compare, first, last, samples, scale, cells, "
    "count, under, channels, planes, validity)\n\n"
    "Merge rows first:last into planes of half floats and of validity.");

static PyObject *
merge_half(PyObject *module, PyObject *args)
{
    PyObject *frames, *words, *spans, *compare, *scale, *cells, *under, *planes, *validity;
    int weight_bits, count, channels;
    job_t job;
    half_t to;
    (void)module;
    if (!PyArg_ParseTuple(args, "OOiOOnnnOOiOiOO:merge_half", &frames, &words, &weight_bits,
                          &spans, &compare, &job.first, &job.last, &job.samples, &scale, &cells,
                          &count, &under, &channels, &planes, &validity)) {
        return NULL;
    }
    if (count < 1 || (channels != 1 && channels != LANES) || job.samples % channels) {
        PyErr_SetString(PyExc_ValueError, "count, channels or samples out of range");
        return NULL;
    }
    views_t views;
    views.count = 0;
    PyObject *result = NULL;
    if (take_job(&views, &job, frames, words, weight_bits, spans, compare) < 0) {
        goto done;
    }
    to.channels = channels;
    if (!(to.cells = take_cells(&views, &job.how, scale, cells, count, 2, &to.width)) ||
        !(to.under = take(&views, under, LANES * 2, 0, "under")) ||
        !(to.planes = take(&views, planes, -1, 1, "planes"))) {
        goto done;
    }
    const Py_ssize_t bytes = last_length(&views);
    to.plane = bytes / 2 / channels;
    if (bytes % (2 * channels) || to.plane / (job.samples / channels) < job.last) {
        PyErr_SetString(PyExc_ValueError, "planes: fewer rows than asked for");
        goto done;
    }
    if (!(to.validity = take(&views, validity, bytes / 2, 1, "validity"))) {
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    run_half(&job, &to);
    Py_END_ALLOW_THREADS
    result = Py_NewRef(Py_None);
done:
    release(&views);
    return result;
}

PyDoc_STRVAR(
    merge_radiance_doc,
    "merge_radiance(frames, words, weight_bits, spans, compare, first, last, samples, unit, "
    "offset, maximum, special, flags, ln_radiance, validity)\n\n"
    "Merge rows first:last into ln E and validity.");

static PyObject *
merge_radiance(PyObject *module, PyObject *args)
{
    PyObject *frames, *words, *spans, *compare, *unit, *offset, *maximum, *special, *flags;
    PyObject *ln_radiance, *validity;
    int weight_bits;
    job_t job;
    radiance_t to;
    (void)module;
    if (!PyArg_ParseTuple(args, "OOiOOnnnOOOOOOO:merge_radiance", &frames, &words, &weight_bits,
                          &spans, &compare, &job.first, &job.last, &job.samples, &unit, &offset,
                          &maximum, &special, &flags, &ln_radiance, &validity)) {
        return NULL;
    }
    views_t views;
    views.count = 0;
    PyObject *result = NULL;
    if (take_job(&views, &job, frames, words, weight_bits, spans, compare) < 0) {
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
        !(to.ln_radiance =
              take(&views, ln_radiance, samples * (Py_ssize_t)sizeof(float), 1, "ln_radiance")) ||
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

int vectors = PLAIN;

static int
best_vectors(void)
{
#if ON_X86
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2")) {
        return PLAIN;
    }
    const int wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                     __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vbmi") &&
                     __builtin_cpu_supports("avx512vnni");
    return wide ? AVX512 : AVX2;
#else
    return PLAIN;
#endif
}

PyDoc_STRVAR(
    vectors_doc,
    "vectors(most=None)\n\nWhich instructions are used: 'plain', 'avx2' or 'avx512'. With an "
    "argument no more than these are from now on.");

static const char *const VECTORS[] = {[PLAIN] = "plain", [AVX2] = "avx2", [AVX512] = "avx512"};

static PyObject *
name_vectors(PyObject *module, PyObject *args)
{
    const char *name = NULL;
    (void)module;
    if (!PyArg_ParseTuple(args, "|s:vectors", &name)) {
        return NULL;
    }
    if (!name) {
        return PyUnicode_FromString(VECTORS[vectors]);
    }
    for (int wanted = PLAIN; wanted <= AVX512; wanted++) {
        if (strcmp(name, VECTORS[wanted]) == 0) {
            const int best = best_vectors();
            vectors = wanted < best ? wanted : best;
            return PyUnicode_FromString(VECTORS[vectors]);
        }
    }
    return PyErr_Format(PyExc_ValueError, "vectors: plain, avx2 or avx512; got %s", name);
}

static PyMethodDef methods[] = {
    {"merge_codes", merge_codes, METH_VARARGS, merge_codes_doc},
    {"merge_half", merge_half, METH_VARARGS, merge_half_doc},
    {"merge_radiance", merge_radiance, METH_VARARGS, merge_radiance_doc},
    {"vectors", name_vectors, METH_VARARGS, vectors_doc},
    {NULL, NULL, 0, NULL},
};

static int
execute(PyObject *module)
{
    (void)module;
    vectors = best_vectors();
    prepare_deghost();
    return 0;
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
