/* The merge of a bracket in one pass over its exposures, in C.
 *
 * The packing: every exposure adds one 64-bit word per sample, looked up by its code.
 *
 *     63          32 31            weight_bits          0
 *     | numerator    | counters    | weight             |
 *
 * Numerator: w (g - ln t - lowest) in fixed point. Weight: w as an integer. Counters: of the
 * shortest exposures that are dark, and of the longest that are saturated; they select the
 * fallback where the weight is zero. lookup_tables.py makes the words. x = numerator / weight,
 * scaled, is the index of a cell of an output table, or becomes ln E. Sums of integers are exact,
 * so the order of the exposures does not matter.
 *
 * engine.py does the same arithmetic in numpy, to the byte: integer sums, and single-precision
 * conversion, division and multiplication, each rounded once. Therefore never compile these files
 * with -ffast-math, and keep -ffp-contract=off.
 *
 * module.c    what Python sees; checks every buffer      plain.c   sums and cells on any machine
 * outputs.c   from cells to codes, half floats, ln E     avx2.c, avx512.c   the same, faster
 * deghost.c   samples that contradict another exposure lose their weight
 */
#ifndef ASI_WATCH_KERNEL_H
#define ASI_WATCH_KERNEL_H

#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__) && defined(__GNUC__)
#define ON_X86 1
#else
#define ON_X86 0
#endif

#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline))
#else
#define INLINE static inline
#endif

enum {
    LANES = 3,
    MAX_FRAMES = 64,
    MAX_REFERENCES = 2, /* that a frame is compared with */
    CHUNK = 1536, /* samples that are worked on at a time, in the first-level cache; 8 × 192 */
    PIECE = 2 * CHUNK, /* samples that are freed of ghosts at a time */
    NOTHING_STATED = 0xffff,
    PAD = 8, /* what may be written beyond a chunk by whole vectors */
    KNOT_BYTES = 3 * 256,
};

typedef const uint64_t (*tables_t)[LANES][256];

/* How a sum becomes x and the index of a cell. */
typedef struct {
    float scale[LANES];
    uint32_t weight_mask;
    int weight_bits;
    int32_t count; /* cells, before those of the counters */
} reading_t;

typedef struct {
    const uint8_t *frames[MAX_FRAMES];
    int count;
    tables_t tables;
    const int32_t *spans; /* first and last sample of each row, or NULL */
    ptrdiff_t first, last, samples;
    reading_t how;
    /* Frames that lose samples: each with how many references and which, and what these state. */
    int compared, channels;
    const int32_t (*which)[2 + MAX_REFERENCES];
    const uint8_t (*ranges)[LANES][2][256];
    const uint16_t (*words)[LANES][256];
} job_t;

/* Output codes over cells. */
typedef struct {
    const void *cells;
    const float *edges;   /* LANES rows of 2^bits + 1, or NULL */
    const uint8_t *knots; /* LANES rows of KNOT_BYTES, or NULL: see avx512.c */
    ptrdiff_t width;      /* entries of a row of cells */
    int itemsize;
    uint8_t *out;
} codes_t;

typedef struct {
    const float *unit, *offset, *maximum; /* LANES each */
    const float *special;                 /* LANES rows, one entry per value of the counters */
    const uint8_t *flags;                 /* per value of the counters */
    ptrdiff_t specials;
    float *ln_radiance;
    uint8_t *validity;
} radiance_t;

/* Half floats and their validity, each a plane of a channel. */
typedef struct {
    const uint16_t *cells; /* marked by the sign bit where the weight is zero */
    const uint16_t *under; /* LANES: what is marked as under-exposed */
    ptrdiff_t width;       /* entries of a row of cells */
    ptrdiff_t plane;       /* entries of a plane */
    int channels;
    ptrdiff_t top; /* row of the planes at which the frames begin */
    uint16_t *planes;
    uint8_t *validity;
} half_t;

/* Which instructions are used, from what the machine has. */
enum { PLAIN, AVX2, AVX512 };
extern int vectors;

/* plain.c: cells, and x unless NULL, of samples start to start + n, n <= CHUNK. Both have room for
 * PAD more. */
void sum_cells(const job_t *job, ptrdiff_t start, ptrdiff_t n, float *x, int32_t *cell);

/* avx2.c: x (unless NULL) and cells of n sums; reads and writes whole vectors of eight. */
void cells_avx2(const uint64_t *sum, ptrdiff_t n, const reading_t *how, float *x, int32_t *cell);

/* avx512.c: tables for 64 samples at a time. NULL: not on this machine, or not for this job. */
typedef struct avx512 avx512_t;
avx512_t *avx512_open(const job_t *job, const codes_t *to);
void avx512_close(avx512_t *self);
int avx512_has_codes(const avx512_t *self);

/* As sum_cells, but x and cell have room for whole blocks of 192. */
void avx512_cells(const avx512_t *self, const job_t *job, ptrdiff_t start, ptrdiff_t n, float *x,
                  int32_t *cell);

/* 8-bit codes at once, if avx512_has_codes. */
void avx512_codes(const avx512_t *self, const job_t *job, ptrdiff_t start, ptrdiff_t n,
                  uint8_t *out);

/* Another exposure of the bracket, and what it states of a frame: per channel the lowest and the
 * highest code that agrees with each of its codes; and the same as a word, the lowest and how many
 * codes follow it in the high byte. */
typedef struct {
    const uint8_t *frame;
    const uint8_t (*range)[2][256];
    const uint16_t (*words)[256];
} reference_t;

/* Samples of a run: all, or so many that what is left of the frames fits. Begin with zeros. */
typedef struct {
    const job_t *job; /* of the frames as they are, or of what is left of them */
    ptrdiff_t start;  /* sample of that job's frames */
    ptrdiff_t at, n;  /* samples, from the beginning of the picture's row */
    job_t own;
    uint8_t rejected[MAX_FRAMES][PIECE];
} piece_t;

/* deghost.c: the next piece of samples piece->at to end of the rows that begin at sample `begin`;
 * 0: none is left. */
int next_piece(const job_t *job, ptrdiff_t begin, ptrdiff_t end, piece_t *piece);
void prepare_deghost(void);

/* outputs.c */
void run_codes(const job_t *job, const codes_t *to);
void run_half(const job_t *job, const half_t *to);
void run_radiance(const job_t *job, const radiance_t *to);

#endif
