#include "core/backend/cpu/panel_product.h"

#ifdef __AVXVNNI__
#include <immintrin.h>

typedef __m256i vector;
enum { LANES = 8, ROWS = 6, WIDE = 2 };
#define LOAD(p) _mm256_loadu_si256((const __m256i *)(const void *)(p))
#define STORE(p, x) _mm256_storeu_si256((__m256i *)(void *)(p), x)
#define SET(x) _mm256_set1_epi32(x)
#define DOT(sum, u, s) _mm256_dpbusd_avx_epi32(sum, u, s)

#include "core/backend/cpu/panel_kernels_integers.h"

static const nd_panel_kind kinds[ND_PANEL_KINDS] = {ND_INTEGER_KINDS};

const nd_panel_kind *nd_panel_kinds_avx2_vnni(void)
{
    return kinds;
}
#else
const nd_panel_kind *nd_panel_kinds_avx2_vnni(void)
{
    return 0;
}
#endif
