// Device memory.
//
// An allocation ends at a page that faults, so that a kernel's access behind it is caught; freed memory faults too, as
// long as its addresses are not needed. In the AddressSanitizer build memory is malloc's, with its red zones.
#include "driver.h"
#include <stdlib.h>
#include <sys/mman.h>

namespace emu {

static constexpr size_t page = 4096, alignment = 256, quarantine = 64ull << 30;
static std::map<uintptr_t, Block> blocks;
static std::deque<Block> freed;
static size_t freedBytes;

static size_t up(size_t n, size_t to) {
    return (n + to - 1) / to * to;
}

// A GPU's protection key; -1 where there is none.
static int keyOf(const Device *d) {
    static std::map<const Device *, int> keys;
    const auto i = keys.find(d);
    if (i != keys.end()) return i->second;
#ifdef CUEMU_ASAN
    return keys[d] = -1;
#else
    return keys[d] = pkey_alloc(0, 0);
#endif
}
static void allow(const Device *d, bool yes) {
    const int key = keyOf(d);
    if (key >= 0) pkey_set(key, yes ? 0 : PKEY_DISABLE_ACCESS);
}
void reachAll() {
    for (Device &d : devices) allow(&d, true);
}
void reachNone() {
    for (Device &d : devices) allow(&d, false);
}
void reach(Context *c) {
    for (Device &d : devices) allow(&d, &d == c->device);
    for (const Context *p : c->peers) allow(p->device, true);
}

// find is the block that p lies in, or the one before it.
static const Block *before(uintptr_t p) {
    auto i = blocks.upper_bound(p);
    return i == blocks.begin() ? nullptr : &std::prev(i)->second;
}
static const Block *find(const void *p) {
    const Block *b = before((uintptr_t)p);
    return b && (uintptr_t)p < b->at + b->size ? b : nullptr;
}
const char *describe(const void *p) {
    static char text[160];
    const uintptr_t at = (uintptr_t)p;
    text[0] = 0;
    if (at < page) return ", a null pointer";
    for (const Block &f : freed)
        if (at >= f.at && at < f.at + f.size) {
            snprintf(text, sizeof text, ", %zu bytes into %zu that were freed", (size_t)(at - f.at), f.size);
            return text;
        }
    if (const Block *b = find(p)) {
        snprintf(text, sizeof text, ", in an allocation on GPU %d, out of reach", b->context->device->number);
        return text;
    }
    if (const Block *b = before(at))
        if (at < (uintptr_t)b->base + b->mapped)
            snprintf(text, sizeof text, ", %zu bytes behind the end of an allocation of %zu on GPU %d",
                     (size_t)(at - b->at - b->size), b->size, b->context->device->number);
    const auto i = blocks.upper_bound(at);
    if (!text[0] && i != blocks.end() && at >= (uintptr_t)i->second.base)
        snprintf(text, sizeof text, ", %zu bytes before an allocation of %zu on GPU %d", (size_t)(i->second.at - at),
                 i->second.size, i->second.context->device->number);
    return text;
}

Result allocate(Context *c, size_t n, uintptr_t &at) {
    Device *d = c->device;
    if (!n) return INVALID_VALUE;
    const size_t size = up(n, alignment);
    if (size > d->total - d->used || size < n) return OUT_OF_MEMORY;
    Block b = {0, n, c, nullptr, 0};
#ifdef CUEMU_ASAN
    b.base = aligned_alloc(alignment, n);  // to the byte: the red zone is right behind
    if (!b.base) return OUT_OF_MEMORY;
    b.at = (uintptr_t)b.base;
#else
    const size_t data = up(size, page);
    b.mapped = data + 2 * page;
    b.base = mmap(nullptr, b.mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (b.base == MAP_FAILED) return OUT_OF_MEMORY;
    if (pkey_mprotect((char *)b.base + page, data, PROT_READ | PROT_WRITE, keyOf(d))) {
        munmap(b.base, b.mapped);
        return OUT_OF_MEMORY;
    }
    b.at = (uintptr_t)b.base + page + data - size;
#endif
    memset((void *)b.at, 0xff, n);
    d->used += size;
    blocks[b.at] = b;
    at = b.at;
    return SUCCESS;
}
Result release(uintptr_t at) {
    const auto i = blocks.find(at);
    if (i == blocks.end()) return INVALID_VALUE;
    Block b = i->second;
    blocks.erase(i);
    b.context->device->used -= up(b.size, alignment);
#ifdef CUEMU_ASAN
    free(b.base);
#else
    mmap(b.base, b.mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    freed.push_back(b);
    freedBytes += b.mapped;
    while (freedBytes > quarantine || freed.size() > 4096) {
        munmap(freed[0].base, freed[0].mapped);
        freedBytes -= freed[0].mapped;
        freed.pop_front();
    }
#endif
    return SUCCESS;
}
void releaseAll(Context *c) {
    for (auto i = blocks.begin(); i != blocks.end();) {
        const Block b = (i++)->second;
        if (b.context == c) release(b.at);
    }
}

bool lies(const void *p, size_t n, Side side, const char *what) {
    const Block *b = find(p);
    if (!n || (side != DEVICE && !b && !*describe(p)) || (side != HOST && b && (uintptr_t)p + n <= b->at + b->size))
        return true;
    fprintf(stderr, "cuemu: %s: %zu bytes at %p", what, n, p);
    if (b)
        fprintf(stderr,
                side == HOST ? ", which is device memory" : ", where an allocation on GPU %d has %zu bytes left",
                b->context->device->number, (size_t)(b->at + b->size - (uintptr_t)p));
    else
        fprintf(stderr, ", which is no %smemory%s", side == DEVICE ? "device " : "", describe(p));
    fprintf(stderr, "\n");
    return false;
}
bool find(uintptr_t p, Block &b) {
    const Block *f = find((const void *)p);
    if (f) b = *f;
    return f;
}
size_t freeMemory(Device *d) {
    return d->total > d->used ? d->total - d->used : 0;
}

}  // namespace emu
