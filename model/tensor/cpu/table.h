// The table of kernels that each instruction set fills and dispatch.c reads.
#include "kernels.h"

#define LIFT_FIELD(type, name, params, args) type(*name) params;
struct lift_table {
    LIFT_KERNELS(LIFT_FIELD)
};
