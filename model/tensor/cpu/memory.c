// Device memory of the CPU: whole pages, large runs in huge pages where the system has them.
#define _GNU_SOURCE
#include <malloc.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernels.h"

#define HUGE_PAGE ((size_t)2 << 20)
#define LARGE ((size_t)1 << 20)

// Large runs are mapped, with their start at a huge page's; small ones come from the heap.
void *lift_alloc(size_t bytes) {
    if (bytes < LARGE) {
        void *p = NULL;
        return posix_memalign(&p, 64, bytes) ? NULL : p;
    }
    if (bytes > SIZE_MAX / 2) return NULL;
    char *p = mmap(NULL, bytes + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return NULL;
    const size_t skip = (HUGE_PAGE - (uintptr_t)p % HUGE_PAGE) % HUGE_PAGE;
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), used = (skip + bytes + page - 1) / page * page;
    if (skip) munmap(p, skip);
    if (used < bytes + HUGE_PAGE) munmap(p + used, bytes + HUGE_PAGE - used);
#ifdef MADV_HUGEPAGE
    madvise(p + skip, bytes, MADV_HUGEPAGE);  // a wish: failing is fine
#endif
    return p + skip;
}

// bytes is what lift_alloc was asked for.
void lift_free(void *p, size_t bytes) {
    if (bytes < LARGE)
        free(p);
    else
        munmap(p, bytes);
}

// oneDNN allocates its packing buffers at each product. Left alone, the C library returns them to the system each time,
// which then zeroes the pages again: 8% of a step.
void lift_keep_heap(void) {
#ifdef M_TRIM_THRESHOLD
    mallopt(M_MMAP_THRESHOLD, 32 << 20);
    mallopt(M_TRIM_THRESHOLD, 256 << 20);
#endif
}
