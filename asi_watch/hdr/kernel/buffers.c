#include "buffers.h"

void
release(views_t *views)
{
    while (views->count > 0) {
        PyBuffer_Release(&views->view[--views->count]);
    }
}

void *
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

Py_ssize_t
last_length(const views_t *views)
{
    return views->view[views->count - 1].len;
}

int
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
