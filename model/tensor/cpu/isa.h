// All kernels for one instruction set: an isa_*.c defines W and FN and sets the target, then includes this.
#include "vec.h"

#include "elementwise.h"

#include "activation.h"
#include "norm.h"

#include "attention.h"
#include "loss.h"
#include "masked.h"

#define LIFT_ENTRY(type, name, params, args) FN(name),
const struct lift_table FN(table) = {LIFT_KERNELS(LIFT_ENTRY)};
