#include "core/backend/cpu/cpu_isa.h"

#include "core/backend/cpu/onednn.h"

#if defined(__x86_64__)
#include <cpuid.h>

/* What not every compiler's __builtin_cpu_supports knows. Asked once: in a virtual machine that
 * takes microseconds. */

static bool has_avx_vnni(void)
{
    enum { AVX_VNNI = 1 << 4 };
    static _Atomic int known; /* 1: no, 2: yes */
    unsigned a = 0, b, c, d;
    if (known == 0)
        known = 1 + (__get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & AVX_VNNI) != 0);
    return known == 2;
}

/* Tiles of bf16 and of int8. */
static bool has_amx(void)
{
    enum { BF16 = 1 << 22, TILE = 1 << 24, INT8 = 1 << 25, ALL = BF16 | TILE | INT8 };
    static _Atomic int known; /* 1: no, 2: yes */
    unsigned a, b, c, d = 0;
    if (known == 0)
        known = 1 + (__get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & ALL) == ALL);
    return known == 2;
}

static bool cpu_supports(nd_cpu_isa isa)
{
    __builtin_cpu_init();
    switch (isa) {
    case ND_CPU_ISA_AUTO:
    case ND_CPU_ISA_GENERIC:
        return true;
    case ND_CPU_ISA_DOTPROD:
        break;
    case ND_CPU_ISA_AVX2:
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case ND_CPU_ISA_AVX2_VNNI:
        return cpu_supports(ND_CPU_ISA_AVX2) && has_avx_vnni();
    case ND_CPU_ISA_AVX512:
        return cpu_supports(ND_CPU_ISA_AVX2) && __builtin_cpu_supports("avx512f") &&
               __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("avx512dq");
    case ND_CPU_ISA_AVX512_VNNI:
        return cpu_supports(ND_CPU_ISA_AVX512) && __builtin_cpu_supports("avx512vnni");
    case ND_CPU_ISA_AVX512_BF16:
        return cpu_supports(ND_CPU_ISA_AVX512_VNNI) && __builtin_cpu_supports("avx512bf16");
    case ND_CPU_ISA_AMX:
        return cpu_supports(ND_CPU_ISA_AVX512_BF16) && has_amx();
    }
    return false;
}

bool nd_cpu_isa_gains_by_bf16(nd_cpu_isa isa)
{
    return isa == ND_CPU_ISA_AMX || (isa == ND_CPU_ISA_AVX512_BF16 && !__builtin_cpu_is("intel"));
}

static nd_cpu_isa best(void)
{
    nd_cpu_isa isa = ND_CPU_ISA_AMX;
    while (!cpu_supports(isa) || !nd_onednn_may_use(isa))
        if (--isa == ND_CPU_ISA_GENERIC)
            break;
    return isa;
}

nd_status nd_cpu_isa_apply(nd_cpu_isa requested, nd_cpu_isa *effective)
{
    ND_FAIL_IF(!cpu_supports(requested), ND_ECONFIG,
               "[hardware] cpu_isa = %s: this CPU lacks it; the best it has is %s (cpu_isa = auto "
               "takes it)",
               nd_cpu_isa_name(requested), nd_cpu_isa_name(best()));
    if (requested != ND_CPU_ISA_AUTO)
        nd_onednn_limit(requested); /* no effect if one is in force: checked below */
    *effective = best();
    ND_FAIL_IF(requested != ND_CPU_ISA_AUTO && *effective != requested, ND_ECONFIG,
               "[hardware] cpu_isa = %s, but oneDNN is limited to %s in this process already (by "
               "DNNL_MAX_CPU_ISA, or by an earlier choice)",
               nd_cpu_isa_name(requested), nd_cpu_isa_name(*effective));
    return ND_OK;
}
#else
#ifdef __aarch64__
#include <sys/auxv.h>
#endif

bool nd_cpu_isa_gains_by_bf16(nd_cpu_isa isa)
{
    (void)isa;
    return false;
}

static nd_cpu_isa best_of_arm(void)
{
#ifdef __aarch64__
    if (getauxval(AT_HWCAP) & HWCAP_ASIMDDP)
        return ND_CPU_ISA_DOTPROD;
#endif
    return ND_CPU_ISA_GENERIC;
}

nd_status nd_cpu_isa_apply(nd_cpu_isa requested, nd_cpu_isa *effective)
{
    const nd_cpu_isa best = best_of_arm();
    *effective = requested == ND_CPU_ISA_AUTO ? best : requested;
    ND_FAIL_IF(requested > ND_CPU_ISA_DOTPROD, ND_ECONFIG,
               "[hardware] cpu_isa = %s is for x86 CPUs; on this one use auto or %s",
               nd_cpu_isa_name(requested), nd_cpu_isa_name(best));
    ND_FAIL_IF(*effective > best, ND_ECONFIG,
               "[hardware] cpu_isa = %s: this CPU lacks it; the best it has is %s (cpu_isa = auto "
               "takes it)",
               nd_cpu_isa_name(requested), nd_cpu_isa_name(best));
    return ND_OK;
}
#endif

const char *nd_cpu_isa_name(nd_cpu_isa isa)
{
    static const char *const names[] = {"auto",   "generic",     "dotprod",     "avx2", "avx2_vnni",
                                        "avx512", "avx512_vnni", "avx512_bf16", "amx"};
    return names[isa];
}
