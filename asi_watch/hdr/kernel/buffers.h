/* Arguments from Python: every buffer is measured before anything is read. */
#ifndef ASI_WATCH_BUFFERS_H
#define ASI_WATCH_BUFFERS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "kernel.h"

enum { MAX_VIEWS = MAX_FRAMES + 12 };

/* What has been taken and must be given back. */
typedef struct {
    Py_buffer view[MAX_VIEWS];
    int count;
} views_t;

void release(views_t *views);

/* Address of a contiguous buffer of exactly `bytes` bytes (any length if negative), or NULL with
 * an exception. */
void *take(views_t *views, PyObject *object, Py_ssize_t bytes, int writable, const char *what);

/* Bytes of what was taken last. */
Py_ssize_t last_length(const views_t *views);

/* Read the arguments that all merges share; -1 with an exception. */
int take_job(views_t *views, job_t *job, PyObject *frames, PyObject *words, int weight_bits,
             PyObject *spans);

#endif
