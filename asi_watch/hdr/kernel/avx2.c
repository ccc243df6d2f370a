/* x and cells of eight sums at a time, with AVX2. */
#include "kernel.h"

#if ON_X86

#include <immintrin.h>

/* Unsigned to float in one rounding: both halves are exact, their sum is rounded. */
__attribute__((target("avx2"))) static inline __m256
float_of(__m256i value)
{
    const __m256 high = _mm256_cvtepi32_ps(_mm256_srli_epi32(value, 16));
    const __m256 low = _mm256_cvtepi32_ps(_mm256_and_si256(value, _mm256_set1_epi32(0xffff)));
    return _mm256_add_ps(_mm256_mul_ps(high, _mm256_set1_ps(65536.0f)), low);
}

__attribute__((target("avx2"))) INLINE void
cells_some(const int want_x, const uint64_t *sum, ptrdiff_t n, const reading_t *how, float *x,
           int32_t *cell)
{
    /* Samples 0 1 4 5 2 3 6 7: the order in which shuffles split eight words, undone at the end.
     */
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
    for (ptrdiff_t i = 0; i < n; i += 8) {
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

__attribute__((target("avx2"))) void
cells_avx2(const uint64_t *sum, ptrdiff_t n, const reading_t *how, float *x, int32_t *cell)
{
    if (x) {
        cells_some(1, sum, n, how, x, cell);
    } else {
        cells_some(0, sum, n, how, x, cell);
    }
}
#endif
