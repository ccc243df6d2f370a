/* Walks the entropy-coded data of one scan of a JPEG, and says whether it is whole.
 *
 * libjpeg-turbo decodes what it can: up to eight bytes left over at the end of a scan, end-of-band
 * runs that are too long, levels out of range and holes of zero bytes in progressive scans leave
 * no warning. Here every code is followed, nothing is transformed. A scan is whole if its codes
 * give exactly the blocks that the frame needs, its restart marks stand where they belong, and no
 * coefficient lies outside its range.
 *
 * Of the blocks of a progressive picture only this is kept from scan to scan: which coefficients
 * are not zero (a bit each, which decides how many bits a refining scan has) and the level of DC.
 *
 * Only the stable ABI of CPython 3.11 is used. All bytes are hostile: every read is bounded.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>
#include <string.h>

enum { WHOLE, SHORT, BAD_CODE, RESTART, RANGE, LEVEL, RUN, HOLE, BAD_TABLE };

#define FAST_BITS 11
#define JUMP_BITS 12
#define MOST_COMPONENTS 4
/* Steps of an end of block: beyond any place in a block. */
#define BLOCK_ENDS 128
/* A run of HOLE_BYTES zero bytes may be a hole. It is one if the values read from it are unlikely
 * enough: each bit that could as well be one counts 1, each coefficient of the lowest value of its
 * size 3, and HOLE_PROOFS in all prove it. */
#define HOLE_BYTES 64
#define HOLE_PROOFS 64
#define RECENT 4

typedef struct {
    uint16_t fast[1 << FAST_BITS]; /* length << 8 | symbol; 0: a longer code, or none */
    uint16_t jump[1 << JUMP_BITS]; /* AC, sequential, see jumps_of */
    int32_t last[17];              /* the last code of each length, or -1 */
    int32_t shift[17];             /* what to add to a code to get its place in symbols */
    uint8_t symbols[256];
    int joins_blocks; /* has codes for runs of several empty blocks */
} table_t;

/* What the last blocks were like: bits prove a hole only where the picture does not repeat. */
typedef struct {
    uint64_t seen[RECENT]; /* the latest first */
} recent_t;

typedef struct {
    int h, v;              /* sampling factors */
    Py_ssize_t wide, high; /* blocks in a scan of this component alone */
    Py_ssize_t stride;     /* blocks in a row, with those that only fill up the last unit */
    int32_t level_limit;   /* highest plausible quantised DC */
    int32_t level;         /* predictor of DC */
    table_t *dc, *ac;
    uint64_t *masks;
    int16_t *levels;
    recent_t seen_levels;
} component_t;

typedef struct {
    const uint8_t *base, *at, *end;
    uint64_t bits; /* the next bits, from the top */
    int count;     /* how many of them are there */
    int first, last, high, low;
    int64_t empty; /* blocks of the end-of-band run that are left */
    int watch;     /* there are runs of zero bytes */
    const uint8_t *hole_from, *hole_to;
    int proofs;
    recent_t masks;
    int empty_before;
} scan_t;

typedef int (*block_t)(scan_t *, component_t *, Py_ssize_t);

/* --- bits ------------------------------------------------------------------------------------ */

static inline uint64_t
load(const uint8_t *at)
{
#if defined(__GNUC__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    uint64_t word;
    memcpy(&word, at, sizeof(word));
    return __builtin_bswap64(word);
#else
    uint64_t word = 0;
    for (int i = 0; i < 8; i++) {
        word = word << 8 | at[i];
    }
    return word;
#endif
}

static inline void
refill(scan_t *s)
{
    if (s->count > 32) {
        return;
    }
    if (s->end - s->at >= 8) {
        const uint64_t word = load(s->at);
        const uint64_t ones = (word & 0x7f7f7f7f7f7f7f7fu) + 0x0101010101010101u;
        if (!(ones & word & 0x8080808080808080u)) { /* no byte is 0xFF */
            const int bytes = (64 - s->count) >> 3;
            s->bits |= word >> s->count;
            s->at += bytes;
            s->count += bytes * 8;
            return;
        }
    }
    while (s->count <= 56 && s->at < s->end) {
        const uint64_t byte = *s->at;
        if (byte == 0xff) {
            if (s->end - s->at < 2 || s->at[1] != 0) {
                return; /* a mark */
            }
            s->at++;
        }
        s->at++;
        s->bits |= byte << (56 - s->count);
        s->count += 8;
    }
}

static inline int
skip(scan_t *s, int bits)
{
    s->bits <<= bits;
    s->count -= bits;
    return s->count < 0 ? SHORT : WHOLE;
}

/* Up to 16 bits; the caller has refilled. */
static inline int
take_bits(scan_t *s, int bits)
{
    const int value = bits ? (int)(s->bits >> (64 - bits)) : 0;
    s->bits <<= bits;
    s->count -= bits;
    return value;
}

/* The next symbol, or minus what is wrong. Leaves room for 16 more bits. */
static inline int
symbol(scan_t *s, const table_t *table)
{
    refill(s);
    const uint16_t entry = table->fast[s->bits >> (64 - FAST_BITS)];
    if (entry) {
        return skip(s, entry >> 8) ? -SHORT : entry & 0xff;
    }
    const int32_t code = (int32_t)(s->bits >> 48);
    for (int length = FAST_BITS + 1; length <= 16; length++) {
        const int32_t head = code >> (16 - length);
        if (head <= table->last[length]) {
            return skip(s, length) ? -SHORT : table->symbols[(head + table->shift[length]) & 0xff];
        }
    }
    return s->count < 16 ? -SHORT : -BAD_CODE;
}

/* What a symbol of a sequential scan does to the place in the block and in the data. */
static uint16_t
jump_of(int length, int value)
{
    const int size = value & 15, run = value >> 4;
    if (size > 11 || (!size && run != 0 && run != 15)) {
        return 0;
    }
    const int steps = value ? run + 1 : BLOCK_ENDS;
    return (uint16_t)(steps << 5 | (length + size));
}

/* As many symbols as the next bits hold, in one: steps << 5 | bits to skip; 0: look closer. */
static uint16_t
jumps_of(const table_t *table, int head)
{
    int skipped = 0, steps = 0;
    while (skipped < JUMP_BITS && steps < BLOCK_ENDS) {
        const int rest = head << skipped & ((1 << JUMP_BITS) - 1);
        const uint16_t entry = table->fast[rest >> (JUMP_BITS - FAST_BITS)];
        const int jump = entry ? jump_of(entry >> 8, entry & 0xff) : 0;
        const int known = skipped + (entry >> 8) <= JUMP_BITS;
        if (!jump || !known || (skipped && skipped + (jump & 31) > JUMP_BITS)) {
            break;
        }
        skipped += jump & 31;
        steps += jump >> 5;
    }
    return (uint16_t)(steps << 5 | skipped);
}

static int
build_table(table_t *table, const uint8_t *spec, Py_ssize_t size)
{
    int32_t code = 0;
    int used = 0;
    memset(table, 0, sizeof(*table));
    for (int length = 1; length <= 16; length++) {
        const int count = spec[length - 1];
        table->last[length] = -1;
        table->shift[length] = used - code;
        if (used + count > 256 || 16 + used + count > size || code + count > (1 << length)) {
            return BAD_TABLE;
        }
        for (int i = 0; i < count; i++, code++, used++) {
            const uint8_t value = spec[16 + used];
            table->symbols[used] = value;
            table->last[length] = code;
            table->joins_blocks |= (value & 15) == 0 && value != 0 && value != 0xf0;
            if (length <= FAST_BITS) {
                const int spare = FAST_BITS - length;
                for (int j = 0; j < 1 << spare; j++) {
                    table->fast[(code << spare) + j] = (uint16_t)(length << 8 | value);
                }
            }
        }
        code <<= 1;
    }
    for (int head = 0; head < 1 << JUMP_BITS; head++) {
        table->jump[head] = jumps_of(table, head);
    }
    return WHOLE;
}

/* --- holes ----------------------------------------------------------------------------------- */

/* Set hole_from and hole_to to the next long run of zero bytes at or behind `from`. */
static void
find_hole(scan_t *s, const uint8_t *from)
{
    for (const uint8_t *p = from; s->end - p >= HOLE_BYTES; p += HOLE_BYTES) {
        const uint8_t *first = p + HOLE_BYTES - 1, *behind = first;
        if (*first) {
            continue;
        }
        while (first > from && !first[-1]) {
            first--;
        }
        while (behind < s->end && !*behind) {
            behind++;
        }
        if (behind - first >= HOLE_BYTES) {
            s->hole_from = first;
            s->hole_to = behind;
            return;
        }
    }
    s->hole_from = s->hole_to = s->end;
}

/* Whether the next bit lies in a long run of zero bytes. */
static int
in_hole(scan_t *s)
{
    const uint8_t *here = s->at - (s->count >> 3);
    while (here >= s->hole_to && s->hole_to < s->end) {
        s->proofs = 0;
        find_hole(s, s->hole_to);
    }
    return here >= s->hole_from && here < s->hole_to;
}

/* Whether a value is none of the last few different ones; it is the latest then. */
static int
is_new(recent_t *recent, uint64_t value)
{
    int i = 0;
    while (i < RECENT - 1 && recent->seen[i] != value) {
        i++;
    }
    const int is = recent->seen[i] != value;
    for (; i > 0; i--) {
        recent->seen[i] = recent->seen[i - 1];
    }
    recent->seen[0] = value;
    return is;
}

static int
prove(scan_t *s, int proofs)
{
    s->proofs += proofs;
    return s->proofs >= HOLE_PROOFS ? HOLE : WHOLE;
}

/* --- blocks ---------------------------------------------------------------------------------- */

/* A coefficient's bits: the lowest value of its size over and over is what a hole looks like. */
static inline int
value_bits(scan_t *s, int size)
{
    if (s->watch && in_hole(s) && s->bits >> (64 - size) == 0 && prove(s, 3)) {
        return HOLE;
    }
    return skip(s, size);
}

static inline int
dc_step(scan_t *s, component_t *c)
{
    const int size = symbol(s, c->dc);
    if (size < 0) {
        return -size;
    }
    if (size > 11) {
        return RANGE;
    }
    if (size) {
        const int value = take_bits(s, size);
        c->level += value >> (size - 1) ? value : value - (1 << size) + 1;
    }
    if (s->count < 0) {
        return SHORT;
    }
    const int32_t full = c->level * (1 << s->low);
    return full > c->level_limit || full < -c->level_limit ? LEVEL : WHOLE;
}

static int
sequential_watched(scan_t *s, component_t *c)
{
    int wrong = WHOLE;
    for (int k = 1; !wrong && k < 64; k++) {
        const int code = symbol(s, c->ac);
        if (code <= 0) {
            return -code; /* 0: end of block */
        }
        const int size = code & 15;
        k += code >> 4;
        if (k > 63 || size > 11 || (!size && code != 0xf0)) {
            return RANGE;
        }
        if (size) {
            wrong = value_bits(s, size);
        }
    }
    return wrong;
}

static int
sequential(scan_t *s, component_t *c, Py_ssize_t block)
{
    int wrong = dc_step(s, c);
    if (wrong || s->watch) {
        return wrong ? wrong : sequential_watched(s, c);
    }
    (void)block;
    /* The same as there, without looking at the values: most of the time is spent here. */
    uint64_t bits = s->bits;
    int count = s->count, k = 1;
    while (k < 64) {
        if (count <= 32) {
            s->bits = bits;
            s->count = count;
            refill(s);
            bits = s->bits;
            count = s->count;
        }
        const int jump = c->ac->jump[bits >> (64 - JUMP_BITS)], next = k + (jump >> 5);
        /* Several symbols at once must not lead into the next block. */
        if (jump && (next <= 64 || (next >= BLOCK_ENDS && next < BLOCK_ENDS + 64))) {
            bits <<= jump & 31;
            count -= jump & 31;
            k = next;
            continue;
        }
        s->bits = bits;
        s->count = count;
        const int code = symbol(s, c->ac);
        if (code < 0) {
            return -code;
        }
        const int step = jump_of(0, code);
        if (!step) {
            return RANGE;
        }
        bits = s->bits << (step & 31);
        count = s->count - (step & 31);
        k += step >> 5;
    }
    s->bits = bits;
    s->count = count;
    return count < 0 ? SHORT : k == 64 || k >= BLOCK_ENDS ? WHOLE : RANGE;
}

static int
dc_first(scan_t *s, component_t *c, Py_ssize_t block)
{
    const int wrong = dc_step(s, c);
    c->levels[block] = (int16_t)(c->level * (1 << s->low));
    return wrong;
}

/* One bit a block. Zero bytes are no hole where the levels repeat. */
static int
dc_refine(scan_t *s, component_t *c, Py_ssize_t block)
{
    refill(s);
    if (s->watch) {
        if (is_new(&c->seen_levels, (uint16_t)c->levels[block]) && in_hole(s) && prove(s, 1)) {
            return HOLE;
        }
    }
    return skip(s, 1);
}

static int
run_of_empty_blocks(scan_t *s, int size)
{
    refill(s);
    s->empty = ((int64_t)1 << size) + take_bits(s, size);
    return s->count < 0 ? SHORT : WHOLE;
}

static int
ac_first(scan_t *s, component_t *c, Py_ssize_t block)
{
    if (s->empty) {
        s->empty--;
        return WHOLE;
    }
    for (int k = s->first; k <= s->last; k++) {
        const int code = symbol(s, c->ac);
        if (code < 0) {
            return -code;
        }
        const int size = code & 15, run = code >> 4;
        if (size) {
            k += run;
            if (k > s->last || size > 11) {
                return RANGE;
            }
            s->empty_before = 0;
            c->masks[block] |= (uint64_t)1 << k;
            const int wrong = value_bits(s, size);
            if (wrong) {
                return wrong;
            }
        } else if (run == 15) {
            k += 15;
        } else {
            /* Who has codes for runs of empty blocks does not write one run after the other. */
            const int wrong = run_of_empty_blocks(s, run);
            const int doubtful = k == s->first && s->empty_before && c->ac->joins_blocks;
            s->empty_before = k == s->first;
            s->empty--;
            return !wrong && s->watch && doubtful && in_hole(s) ? prove(s, 3) : wrong;
        }
    }
    return WHOLE;
}

static int
bits_set(uint64_t mask)
{
    int count = 0;
    for (; mask; mask &= mask - 1) {
        count++;
    }
    return count;
}

/* The bits that refine coefficients from k on; all zero, and of blocks of many kinds: a hole. */
static int
corrections(scan_t *s, uint64_t mask, int k, int new)
{
    uint64_t rest = k < 64 ? mask >> k << k : 0;
    if (s->last < 63) {
        rest &= ((uint64_t)1 << (s->last + 1)) - 1;
    }
    for (int left = bits_set(rest); left > 0; left -= 16) {
        refill(s);
        const int now = left < 16 ? left : 16;
        if (new && in_hole(s) && prove(s, now)) {
            return HOLE;
        }
        if (skip(s, now)) {
            return SHORT;
        }
    }
    return WHOLE;
}

static int
ac_refine(scan_t *s, component_t *c, Py_ssize_t block)
{
    const uint64_t before = c->masks[block];
    const int new = s->watch && before && is_new(&s->masks, before);
    int k = s->first, wrong = WHOLE;
    while (!s->empty && k <= s->last) {
        const int code = symbol(s, c->ac);
        if (code < 0) {
            return -code;
        }
        const int size = code & 15;
        int run = code >> 4;
        if (size > 1) {
            return RANGE;
        }
        if (!size && run < 15) {
            wrong = run_of_empty_blocks(s, run);
            break;
        }
        if (size && (wrong = value_bits(s, 1))) {
            return wrong;
        }
        for (; k <= s->last; k++) {
            if (before >> k & 1) {
                refill(s);
                if (skip(s, 1)) {
                    return SHORT;
                }
            } else if (--run < 0) {
                break;
            }
        }
        if (size) {
            if (k > s->last) {
                return RANGE;
            }
            c->masks[block] |= (uint64_t)1 << k;
        }
        k++;
    }
    if (!wrong && s->empty) {
        s->empty--;
        wrong = corrections(s, before, k, new);
    }
    return wrong;
}

/* --- scans ----------------------------------------------------------------------------------- */

static int
take_restart(scan_t *s, int number)
{
    if (s->count >= 8 || s->empty) {
        return s->empty ? RUN : RESTART;
    }
    while (s->end - s->at >= 2 && s->at[0] == 0xff && s->at[1] == 0xff) {
        s->at++; /* fill bytes */
    }
    if (s->end - s->at < 2 || s->at[0] != 0xff || s->at[1] != 0xd0 + (number & 7)) {
        return s->end - s->at < 2 ? SHORT : RESTART;
    }
    s->at += 2;
    s->bits = 0;
    s->count = 0;
    return WHOLE;
}

static int
walk_unit(scan_t *s, component_t *c, int components, Py_ssize_t unit, Py_ssize_t across,
          block_t block)
{
    const Py_ssize_t row = unit / across, column = unit % across;
    if (components == 1) {
        return block(s, c, row * c->stride + column);
    }
    for (; components--; c++) {
        for (int y = 0; y < c->v; y++) {
            for (int x = 0; x < c->h; x++) {
                const int wrong = block(s, c, (row * c->v + y) * c->stride + column * c->h + x);
                if (wrong) {
                    return wrong;
                }
            }
        }
    }
    return WHOLE;
}

static int
walk(scan_t *s, component_t *c, int components, Py_ssize_t across, Py_ssize_t units,
     Py_ssize_t interval, block_t block, Py_ssize_t *done)
{
    find_hole(s, s->base);
    s->watch = s->hole_from < s->end;
    for (*done = 0; *done < units; ++*done) {
        if (interval && *done && *done % interval == 0) {
            const int wrong = take_restart(s, (int)((*done / interval - 1) & 7));
            if (wrong) {
                return wrong;
            }
            for (int i = 0; i < components; i++) {
                c[i].level = 0;
            }
        }
        const int wrong = walk_unit(s, c, components, *done, across, block);
        if (wrong) {
            return wrong;
        }
    }
    return s->empty ? RUN : WHOLE;
}

/* --- what Python sees -------------------------------------------------------------------------*/

typedef struct {
    Py_buffer views[1 + 4 * MOST_COMPONENTS];
    int count;
    table_t tables[2 * MOST_COMPONENTS];
    component_t components[MOST_COMPONENTS];
} job_t;

/* A buffer of at least `least` bytes, or NULL with an exception. */
static void *
take_buffer(job_t *job, PyObject *object, Py_ssize_t least, int writable, Py_ssize_t *size)
{
    Py_buffer *view = &job->views[job->count];
    if (PyObject_GetBuffer(object, view, writable ? PyBUF_WRITABLE : PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    job->count++;
    if (view->len < least) {
        PyErr_SetString(PyExc_ValueError, "a buffer is too small");
        return NULL;
    }
    if (size) {
        *size = view->len;
    }
    return view->buf;
}

/* 0, -1 with an exception, or BAD_TABLE. */
static int
take_table(job_t *job, PyObject *spec, table_t *table, table_t **to)
{
    Py_ssize_t size;
    if (spec == Py_None) {
        return 0;
    }
    const uint8_t *bytes = take_buffer(job, spec, 16, 0, &size);
    if (!bytes) {
        return -1;
    }
    *to = table;
    return build_table(table, bytes, size);
}

static int
take_component(job_t *job, PyObject *item, int i, Py_ssize_t across, Py_ssize_t down, int alone)
{
    component_t *c = &job->components[i];
    PyObject *dc, *ac, *masks, *levels;
    memset(c, 0, sizeof(*c));
    if (!PyArg_ParseTuple(item, "iinnniOOOO", &c->h, &c->v, &c->wide, &c->high, &c->stride,
                          &c->level_limit, &dc, &ac, &masks, &levels)) {
        return -1;
    }
    const Py_ssize_t rows = alone ? c->high : down * c->v;
    if (c->h < 1 || c->v < 1 || c->h > 4 || c->v > 4 || c->wide < 1 || c->high < 1 ||
        c->stride < (alone ? c->wide : across * c->h) || c->stride > 1 << 20 || rows > 1 << 20) {
        PyErr_SetString(PyExc_ValueError, "a component is out of range");
        return -1;
    }
    int wrong = take_table(job, dc, &job->tables[2 * i], &c->dc);
    if (!wrong) {
        wrong = take_table(job, ac, &job->tables[2 * i + 1], &c->ac);
    }
    if (wrong) {
        return wrong;
    }
    const Py_ssize_t blocks = c->stride * rows;
    if (masks != Py_None && !(c->masks = take_buffer(job, masks, blocks * 8, 1, NULL))) {
        return -1;
    }
    if (levels != Py_None && !(c->levels = take_buffer(job, levels, blocks * 2, 1, NULL))) {
        return -1;
    }
    return 0;
}

/* The function for this kind of scan; NULL with an exception if what it needs is missing. */
static block_t
choose(const scan_t *s, const component_t *c, int components, int progressive)
{
    for (int i = 0; i < components; i++) {
        const int dc = c[i].dc || (progressive && (s->first || s->high));
        const int ac = c[i].ac || (progressive && !s->first);
        const int kept = !progressive || (s->first ? c[i].masks != NULL : c[i].levels != NULL);
        if (!dc || !ac || !kept || (progressive && s->first && components > 1)) {
            PyErr_SetString(PyExc_ValueError, "a table or a buffer is missing");
            return NULL;
        }
    }
    if (!progressive) {
        return sequential;
    }
    if (!s->first) {
        return s->high ? dc_refine : dc_first;
    }
    return s->high ? ac_refine : ac_first;
}

/* Where the bytes that were not needed begin. */
static const uint8_t *
behind_data(const scan_t *s)
{
    const uint8_t *at = s->at;
    for (int bytes = s->count >> 3; bytes > 0; bytes--) {
        at -= at - s->base >= 2 && at[-1] == 0 && at[-2] == 0xff ? 2 : 1;
    }
    return at;
}

PyDoc_STRVAR(find_mark_doc,
             "find_mark(data, start)\n\nReturn where the mark, with its fill bytes, begins that "
             "ends entropy-coded data; -1 if there is none.");

static PyObject *
find_mark(PyObject *module, PyObject *args)
{
    Py_buffer view;
    Py_ssize_t start;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*n:find_mark", &view, &start)) {
        return NULL;
    }
    const uint8_t *bytes = view.buf, *end = bytes + view.len;
    const uint8_t *at = start < 0 || start > view.len ? end : bytes + start;
    Py_ssize_t found = -1;
    while (found < 0 && at < end && (at = memchr(at, 0xff, (size_t)(end - at)))) {
        const uint8_t *kind = at + 1;
        while (kind < end && *kind == 0xff) {
            kind++;
        }
        if (kind >= end) {
            break;
        }
        if (*kind != 0 && (*kind & 0xf8) != 0xd0) {
            found = at - bytes;
        }
        at = kind + 1;
    }
    PyBuffer_Release(&view);
    return PyLong_FromSsize_t(found);
}

PyDoc_STRVAR(check_scan_doc,
             "check_scan(data, start, end, progressive, first, last, high, low, interval, across, "
             "down, components)\n\n"
             "Walk one scan. Each component is a tuple (h, v, wide, high, stride, level_limit, "
             "dc_table, ac_table, masks, levels).\n\n"
             "Returns (what is wrong or 0, units done, offset behind the data used, whether the "
             "bits that fill up the last byte are ones).");

static PyObject *
check_scan(PyObject *module, PyObject *args)
{
    PyObject *data, *items, *result = NULL;
    Py_ssize_t start, end, interval, across, down, size, done = 0;
    int progressive, wrong = 0;
    scan_t s;
    (void)module;
    memset(&s, 0, sizeof(s));
    if (!PyArg_ParseTuple(args, "OnniiiiinnnO!:check_scan", &data, &start, &end, &progressive,
                          &s.first, &s.last, &s.high, &s.low, &interval, &across, &down,
                          &PyTuple_Type, &items)) {
        return NULL;
    }
    const Py_ssize_t components = PyTuple_Size(items);
    job_t *job = PyMem_Malloc(sizeof(*job));
    if (!job) {
        return PyErr_NoMemory();
    }
    job->count = 0;
    const uint8_t *bytes = take_buffer(job, data, 1, 0, &size);
    if (!bytes) {
        goto done;
    }
    if (start < 0 || end < start || end > size || components < 1 || components > MOST_COMPONENTS ||
        across < 1 || down < 1 || across > 1 << 17 || down > 1 << 17 || interval < 0 ||
        s.first < 0 || s.last > 63 || s.first > s.last || s.low < 0 || s.low > 13) {
        PyErr_SetString(PyExc_ValueError, "a scan is out of range");
        goto done;
    }
    for (Py_ssize_t i = 0; i < components && !wrong; i++) {
        wrong =
            take_component(job, PyTuple_GetItem(items, i), (int)i, across, down, components == 1);
    }
    if (wrong < 0) {
        goto done;
    }
    component_t *c = job->components;
    block_t block = wrong ? NULL : choose(&s, c, (int)components, progressive);
    if (!wrong && !block) {
        goto done;
    }
    s.base = s.at = bytes + start;
    s.end = bytes + end;
    if (!wrong) {
        if (components == 1) {
            across = c->wide;
            down = c->high;
        }
        Py_BEGIN_ALLOW_THREADS;
        wrong = walk(&s, c, (int)components, across, across * down, interval, block, &done);
        Py_END_ALLOW_THREADS;
    }
    const int spare = s.count & 7;
    const int filled = !spare || s.bits >> (64 - spare) == (1u << spare) - 1u;
    result = Py_BuildValue("inni", wrong, done, (Py_ssize_t)(behind_data(&s) - bytes), filled);
done:
    while (job->count > 0) {
        PyBuffer_Release(&job->views[--job->count]);
    }
    PyMem_Free(job);
    return result;
}

static PyMethodDef methods[] = {
    {"find_mark", find_mark, METH_VARARGS, find_mark_doc},
    {"check_scan", check_scan, METH_VARARGS, check_scan_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_entropy",
    .m_doc = "Checks the entropy-coded data of JPEGs.",
    .m_size = -1,
    .m_methods = methods,
};

PyMODINIT_FUNC
PyInit__entropy(void)
{
    return PyModule_Create(&definition);
}
