// Entry points for memory: allocations, pinned host memory, copies, fills.
#include "driver.h"
#include <stdlib.h>
#include <unistd.h>

namespace emu {

static std::map<uintptr_t, size_t> pinned;

size_t pinnedAround(const void *p, uintptr_t &at) {
    const auto i = pinned.upper_bound((uintptr_t)p);
    if (i == pinned.begin() || (uintptr_t)p >= std::prev(i)->first + std::prev(i)->second) return 0;
    at = std::prev(i)->first;
    return std::prev(i)->second;
}

static Result copy(Stream *s, void *to, Side toSide, const void *from, Side fromSide, size_t n, const char *what) {
    if (!s) return INVALID_HANDLE;
    if (!lies(to, n, toSide, what) || !lies(from, n, fromSide, what)) return INVALID_VALUE;
    return enqueue(s, [=] {
        if (!touch(to, n, toSide, what) || !touch(from, n, fromSide, what)) return ILLEGAL_ADDRESS;  // freed since
        memmove(to, from, n);
        return SUCCESS;
    });
}
// belongs says whether memory is on the GPU of the context that a caller gives with it.
static bool belongs(uintptr_t at, Context *c, const char *what) {
    const Block *b = find((void *)at);
    if (!b || (all().count(c) && b->context->device == c->device)) return true;
    fprintf(stderr, "cuemu: %s: %p, in an allocation on GPU %d, is given with another context\n", what, (void *)at,
            b->context->device->ordinal);
    return false;
}
static Result copyPeer(Stream *s, uintptr_t to, Context *toContext, uintptr_t from, Context *fromContext, size_t n,
                       const char *what) {
    if (!belongs(to, toContext, what) || !belongs(from, fromContext, what)) return INVALID_VALUE;
    return copy(s, (void *)to, DEVICE, (void *)from, DEVICE, n, what);
}
// blocking is the null stream, when a call may wait for it.
static Result blocking(Stream *&s) {
    Context *c;
    Result e = usable(c);
    if (e || (e = mayWait())) return e;
    s = &c->null;
    return SUCCESS;
}
static Result copyNow(void *to, Side toSide, const void *from, Side fromSide, size_t n, const char *what) {
    Stream *s;
    Result e = blocking(s);
    if (e || (e = copy(s, to, toSide, from, fromSide, n, what))) return e;
    return finish(s);
}
template <class T>
static Result fill(void *handle, uintptr_t at, T v, size_t n, const char *what) {
    Stream *s = streamOf(handle);
    if (!s) return INVALID_HANDLE;
    if (!lies((void *)at, n * sizeof v, DEVICE, what) || at % sizeof v) return INVALID_VALUE;
    return enqueue(s, [=] {
        if (!touch((void *)at, n * sizeof v, DEVICE, what)) return ILLEGAL_ADDRESS;
        for (size_t i = 0; i < n; i++) ((T *)at)[i] = v;
        return SUCCESS;
    });
}

// freeable is the allocation that begins there and is not yet given up; if there is none, stderr says what there is.
static Block *freeable(uintptr_t at, const char *what) {
    Block *b = find((void *)at);
    if (b && b->at == at && !b->freeing) return b;
    fprintf(stderr, "cuemu: %s: %p is no allocation's begin%s%s\n", what, (void *)at, describe((void *)at),
            b && b->freeing ? ", freed before in a stream's order" : "");
    return nullptr;
}

}  // namespace emu

using namespace emu;

API cuMemGetInfo_v2(size_t *free, size_t *total) {
    Guard g;
    Context *c;
    if (const Result e = usable(c)) return e;
    *free = freeMemory(c->device), *total = c->device->total;
    return SUCCESS;
}
API cuMemAlloc_v2(uintptr_t *at, size_t n) {
    Guard g;
    Context *c;
    Result e = usable(c);
    if (e || (e = mayWait())) return e;
    return allocate(c, n, *at);
}
API cuMemFree_v2(uintptr_t at) {
    Guard g;
    Context *c;
    Result e = usable(c);
    if (!at) return SUCCESS;
    if (e || (e = mayWait())) return e;
    const Block *b = freeable(at, "cuMemFree");
    if (!b) return INVALID_VALUE;
    finish(b->context);  // as the driver does
    return release(at);
}
API cuMemAllocAsync(uintptr_t *at, size_t n, void *handle) {
    Guard g;
    Context *c;
    if (const Result e = usable(c)) return e;
    Stream *s = streamOf(handle);
    if (!s) return INVALID_HANDLE;
    if (s->capture) return NOT_SUPPORTED;
    if (const Result e = allocate(c, n, *at); e != OUT_OF_MEMORY) return e;
    finish(s);  // there may be memory that it frees
    return allocate(c, n, *at);
}
API cuMemFreeAsync(uintptr_t at, void *handle) {
    Guard g;
    Stream *s = streamOf(handle);
    if (!s) return INVALID_HANDLE;
    if (s->capture) return NOT_SUPPORTED;
    Block *b = freeable(at, "cuMemFreeAsync");
    if (!b) return INVALID_VALUE;
    b->freeing = true;
    return enqueue(s, [=] { return release(at) ? ILLEGAL_ADDRESS : SUCCESS; });
}
API cuDeviceGetDefaultMemPool(void **pool, int d) {
    *pool = (void *)(uintptr_t)(d + 1);
    return SUCCESS;
}
API cuDeviceGetMemPool(void **pool, int d) {
    return cuDeviceGetDefaultMemPool(pool, d);
}
API cuMemPoolSetAttribute(void *, int, void *) {
    return SUCCESS;
}
API cuMemPoolGetAttribute(void *, int, void *value) {
    memset(value, 0, 8);
    return SUCCESS;
}
API cuMemPoolTrimTo(void *, size_t) {
    return SUCCESS;
}
API cuMemGetAddressRange_v2(uintptr_t *base, size_t *n, uintptr_t at) {
    Guard g;
    const Block *b = find((void *)at);
    if (!b) return NOT_FOUND;
    if (base) *base = b->at;
    if (n) *n = b->size;
    return SUCCESS;
}
API cuPointerGetAttribute(void *value, int attribute, uintptr_t at) {
    Guard g;
    const Block *b = find((void *)at);
    switch (attribute) {
        case 1:  // the context
            if (!b) return INVALID_VALUE;
            *(Context **)value = b->context;
            return SUCCESS;
        case 2:  // the kind of memory
            if (!b && !pinned.count(at)) return INVALID_VALUE;
            *(unsigned *)value = b ? 2 : 1;
            return SUCCESS;
        case 9:  // the device
            if (!b) return INVALID_VALUE;
            *(int *)value = b->context->device->ordinal;
            return SUCCESS;
    }
    return NOT_SUPPORTED;
}

API cuMemHostAlloc(void **p, size_t n, unsigned) {
    Guard g;
    Context *c;
    if (const Result e = usable(c)) return e;
    if (!n) return INVALID_VALUE;
    if (n / 4096 >= (size_t)sysconf(_SC_PHYS_PAGES)) return OUT_OF_MEMORY;
    if (!(*p = aligned_alloc(4096, (n + 4095) / 4096 * 4096))) return OUT_OF_MEMORY;
    memset(*p, 0xff, n);
    pinned[(uintptr_t)*p] = n;
    return SUCCESS;
}
API cuMemAllocHost_v2(void **p, size_t n) {
    return cuMemHostAlloc(p, n, 0);
}
API cuMemFreeHost(void *p) {
    Guard g;
    Context *c;
    if (const Result e = usable(c)) return e;
    if (!pinned.count((uintptr_t)p)) {
        fprintf(stderr, "cuemu: cuMemFreeHost: %p is no pinned memory, or was freed before\n", p);
        return INVALID_VALUE;
    }
    finish(c);
    pinned.erase((uintptr_t)p);
    free(p);
    return SUCCESS;
}
API cuMemHostGetDevicePointer_v2(uintptr_t *at, void *p, unsigned) {
    *at = (uintptr_t)p;
    return SUCCESS;
}
API cuMemHostRegister_v2(void *, size_t, unsigned) {
    return SUCCESS;
}
API cuMemHostUnregister(void *) {
    return SUCCESS;
}

API cuMemcpyHtoD_v2(uintptr_t to, const void *from, size_t n) {
    Guard g;
    return copyNow((void *)to, DEVICE, from, HOST, n, "cuMemcpyHtoD");
}
API cuMemcpyDtoH_v2(void *to, uintptr_t from, size_t n) {
    Guard g;
    return copyNow(to, HOST, (void *)from, DEVICE, n, "cuMemcpyDtoH");
}
API cuMemcpyDtoD_v2(uintptr_t to, uintptr_t from, size_t n) {
    Guard g;
    return copyNow((void *)to, DEVICE, (void *)from, DEVICE, n, "cuMemcpyDtoD");
}
API cuMemcpy(uintptr_t to, uintptr_t from, size_t n) {
    Guard g;
    return copyNow((void *)to, ANY, (void *)from, ANY, n, "cuMemcpy");
}
API cuMemcpyPeer(uintptr_t to, Context *toContext, uintptr_t from, Context *fromContext, size_t n) {
    Guard g;
    Stream *s;
    Result e = blocking(s);
    if (e || (e = copyPeer(s, to, toContext, from, fromContext, n, "cuMemcpyPeer"))) return e;
    return finish(s);
}
API cuMemcpyHtoDAsync_v2(uintptr_t to, const void *from, size_t n, void *s) {
    Guard g;
    return copy(streamOf(s), (void *)to, DEVICE, from, HOST, n, "cuMemcpyHtoDAsync");
}
API cuMemcpyDtoHAsync_v2(void *to, uintptr_t from, size_t n, void *s) {
    Guard g;
    return copy(streamOf(s), to, HOST, (void *)from, DEVICE, n, "cuMemcpyDtoHAsync");
}
API cuMemcpyDtoDAsync_v2(uintptr_t to, uintptr_t from, size_t n, void *s) {
    Guard g;
    return copy(streamOf(s), (void *)to, DEVICE, (void *)from, DEVICE, n, "cuMemcpyDtoDAsync");
}
API cuMemcpyAsync(uintptr_t to, uintptr_t from, size_t n, void *s) {
    Guard g;
    return copy(streamOf(s), (void *)to, ANY, (void *)from, ANY, n, "cuMemcpyAsync");
}
API cuMemcpyPeerAsync(uintptr_t to, Context *toContext, uintptr_t from, Context *fromContext, size_t n, void *s) {
    Guard g;
    return copyPeer(streamOf(s), to, toContext, from, fromContext, n, "cuMemcpyPeerAsync");
}

API cuMemsetD8Async(uintptr_t at, unsigned char v, size_t n, void *s) {
    Guard g;
    return fill(s, at, v, n, "cuMemsetD8");
}
API cuMemsetD16Async(uintptr_t at, unsigned short v, size_t n, void *s) {
    Guard g;
    return fill(s, at, v, n, "cuMemsetD16");
}
API cuMemsetD32Async(uintptr_t at, unsigned v, size_t n, void *s) {
    Guard g;
    return fill(s, at, v, n, "cuMemsetD32");
}
// Fills of device memory do not block the host.
API cuMemsetD8_v2(uintptr_t at, unsigned char v, size_t n) {
    return cuMemsetD8Async(at, v, n, nullptr);
}
API cuMemsetD16_v2(uintptr_t at, unsigned short v, size_t n) {
    return cuMemsetD16Async(at, v, n, nullptr);
}
API cuMemsetD32_v2(uintptr_t at, unsigned v, size_t n) {
    return cuMemsetD32Async(at, v, n, nullptr);
}
