// Chooses the kernels of the best instruction set once, when the program is loaded.
#include "table.h"

extern const struct lift_table table_base, table_avx2, table_avx512;

static const struct lift_table *table = &table_base;
static int used;

int lift_isa_best(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return LIFT_ISA_BASE;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl"))
        return LIFT_ISA_AVX512;
    return LIFT_ISA_AVX2;
#else
    return LIFT_ISA_BASE;
#endif
}

// Returns 0, or -1 when this machine does not run isa. Not for use while a kernel runs.
int lift_isa_use(int isa) {
    if (isa < 0 || isa > lift_isa_best()) return -1;
    table = &table_base;
    used = isa;
#if defined(__x86_64__)
    if (isa == LIFT_ISA_AVX2) table = &table_avx2;
    if (isa == LIFT_ISA_AVX512) table = &table_avx512;
#endif
    return 0;
}

int lift_isa_used(void) {
    return used;
}

const char *lift_isa_name(int isa) {
    switch (isa) {
        case LIFT_ISA_AVX512:
            return "AVX-512";
        case LIFT_ISA_AVX2:
            return "AVX2";
        default:
#if defined(__x86_64__)
            return "SSE2";
#elif defined(__aarch64__)
            return "NEON";
#else
            return "portable";
#endif
    }
}

__attribute__((constructor)) static void choose(void) {
    lift_isa_use(lift_isa_best());
}

// Each kernel calls through the table. All return void but one.
#define LIFT_CALL(type, name, params, args) \
    type lift_##name params {               \
        return table->name args;            \
    }
LIFT_KERNELS(LIFT_CALL)
