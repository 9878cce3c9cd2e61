// What the trampoline adds to the driver's entry points.
#pragma once

// lift_cuda_missing opens the driver and returns 0, or what was looked for and why it did not open.
const char *lift_cuda_missing(void);

// lift_cuda_init is the driver's own cuInit(0): a CUresult. cuInit itself does nothing and succeeds.
int lift_cuda_init(void);

// lift_cuda_symbol is the address of an entry point of the driver, 0 where it has none.
void *lift_cuda_symbol(const char *name);
