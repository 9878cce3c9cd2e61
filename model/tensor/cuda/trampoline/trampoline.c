// libcuda.a: what a program links in place of the driver's libcuda. Each entry point opens the driver when it is first
// called and jumps to the one of its name there (trampoline.S); so one program runs with a driver, with an emulator,
// and with neither.
#include "trampoline.h"
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { SUCCESS = 0, NO_DEVICE = 100, NOT_SUPPORTED = 801 };  // of CUresult

static const char *const names[] = {
#define LIFT_SYMBOL(name, i) #name,
#include "symbols.inc"
};

// Where each symbol leads, 0 until it is first called. Read by trampoline.S.
__attribute__((visibility("hidden"))) void *lift_cuda_targets[sizeof names / sizeof *names];

static pthread_once_t once = PTHREAD_ONCE_INIT;
static void *driver;
static char looked[1024];

static void open_driver(void) {
    const char *path = getenv("LIFT_CUDA_DRIVER");
    const int named = path && *path;
    if (!named) path = "libcuda.so.1";
    driver = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!driver) {
        const char *why = dlerror();
        snprintf(looked, sizeof looked, "%s%s: %s", named ? "LIFT_CUDA_DRIVER=" : "", path, why ? why : "not found");
    }
}

const char *lift_cuda_missing(void) {
    pthread_once(&once, open_driver);
    return driver ? 0 : looked;
}

void *lift_cuda_symbol(const char *name) {
    pthread_once(&once, open_driver);
    return driver ? dlsym(driver, name) : 0;
}

static int no_device(void) {
    return NO_DEVICE;
}
static int not_supported(void) {
    return NOT_SUPPORTED;
}

// lift_cuda_resolve finds the target of symbol i. Threads that come at once find the same.
__attribute__((visibility("hidden"))) void *lift_cuda_resolve(long i) {
    void *target = lift_cuda_symbol(names[i]);
    if (!target) target = (void *)(uintptr_t)(driver ? not_supported : no_device);
    __atomic_store_n(&lift_cuda_targets[i], target, __ATOMIC_RELEASE);
    return target;
}

// gorgonia.org/cu calls cuInit when the program starts, and ends the program where that fails. So it always succeeds;
// lift_cuda_init is the driver's.
__attribute__((visibility("hidden"))) int cuInit(unsigned flags) {
    (void)flags;
    return SUCCESS;
}

int lift_cuda_init(void) {
    int (*init)(unsigned) = (int (*)(unsigned))(uintptr_t)lift_cuda_symbol("cuInit");
    return init ? init(0) : NO_DEVICE;
}
