#include "core/backend/cpu/panel_product.h"

#ifdef __AVX512VNNI__
#include <immintrin.h>

typedef __m512i vector;
enum { LANES = 16, ROWS = 12, WIDE = 2 };
#define LOAD(p) _mm512_loadu_si512(p)
#define STORE(p, x) _mm512_storeu_si512(p, x)
#define SET(x) _mm512_set1_epi32(x)
#define DOT(sum, u, s) _mm512_dpbusd_epi32(sum, u, s)

#include "core/backend/cpu/panel_kernels_integers.h"

static const nd_panel_kind kinds[ND_PANEL_KINDS] = {ND_INTEGER_KINDS};

const nd_panel_kind *nd_panel_kinds_avx512_vnni(void)
{
    return kinds;
}
#else
const nd_panel_kind *nd_panel_kinds_avx512_vnni(void)
{
    return 0;
}
#endif
