// Device memory.
//
// An allocation has far stretches of addresses that fault on both sides, so that a kernel's stray access is caught;
// freed memory faults too, for as long as its addresses are not needed. What lies between an allocation's bytes and
// those stretches (the rounding to 256 bytes behind it, the rest of a page before it) holds ones: a read gives NaN, and
// a write is found after the launch. The AddressSanitizer build finds both at once, by byte.
//
// While no call of the driver runs, all of it faults, so that host code cannot touch device memory, as with a GPU; but
// a large allocation that was closed often enough stays open, for to close it costs time by the page. A kernel may
// touch its GPU's and that of its GPU's peers, a copy what it copies.
#include "driver.h"
#include <stdlib.h>
#include <sys/mman.h>
#ifdef CUEMU_ASAN
#include <sanitizer/asan_interface.h>
#endif

namespace emu {

static constexpr size_t page = 4096, alignment = 256, stretch = 1 << 20, quarantine = 64ull << 30;
static std::map<uintptr_t, Block> blocks;
static std::deque<Block> freed;
static size_t freedBytes;
static Context *reached;  // all that its kernels may touch is open, and nothing else
static bool someOpen;

static uintptr_t up(uintptr_t n, size_t to) {
    return (n + to - 1) / to * to;
}
uintptr_t Block::data() const {
    return at / page * page;
}
uintptr_t Block::end() const {
    return at + up(size, alignment);
}

static void protect(uintptr_t from, uintptr_t to, int how) {
    if (mprotect((void *)from, to - from, how)) perror("cuemu: mprotect"), abort();
}
static void set(Block &b, Block::State s) {
    if (b.state != s) protect(b.data(), b.end(), s == Block::OPEN ? PROT_READ | PROT_WRITE : PROT_NONE);
    b.state = s;
    someOpen |= s != Block::CLOSED;
}
static bool mayReach(const Context *c, const Block &b) {
    if (b.cublas) return false;
    if (b.context->device == c->device) return true;
    for (const Context *p : c->peers)
        if (b.context->device == p->device) return true;
    return false;
}
void reach(Context *c) {
    if (reached == c) return;
    for (auto &i : blocks) set(i.second, mayReach(c, i.second) ? Block::OPEN : Block::CLOSED);
    reached = c;
}
void unreach() {
    if (someOpen)
        for (auto &i : blocks)
            if (i.second.state != Block::CLOSED && i.second.closing > 0) {
                i.second.closing -= (long)((i.second.end() - i.second.data()) / page);
                set(i.second, Block::CLOSED);
            }
    someOpen = false;
    reached = nullptr;
}

// before is the block that p lies in, or else the one before it.
static Block *before(const void *p) {
    auto i = blocks.upper_bound((uintptr_t)p);
    return i == blocks.begin() ? nullptr : &std::prev(i)->second;
}
Block *find(const void *p) {
    Block *b = before(p);
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
    const Block *b = before(p);
    if (b && at < b->at + b->size)
        snprintf(text, sizeof text, ", in an allocation on GPU %d", b->context->device->ordinal);
    else if (b && at < (uintptr_t)b->base + b->mapped)
        snprintf(text, sizeof text, ", %zu bytes behind the end of an allocation of %zu on GPU %d",
                 (size_t)(at - b->at - b->size), b->size, b->context->device->ordinal);
    if (text[0]) return text;
    const auto i = blocks.upper_bound(at);
    if (i != blocks.end() && at >= (uintptr_t)i->second.base)
        snprintf(text, sizeof text, ", %zu bytes before an allocation of %zu on GPU %d", (size_t)(i->second.at - at),
                 i->second.size, i->second.context->device->ordinal);
    return text;
}

// forbid makes a kernel's access to [from, to) an error.
static void forbid(uintptr_t from, uintptr_t to) {
    memset((void *)from, 0xff, to - from);
#ifdef CUEMU_ASAN
    __asan_poison_memory_region((void *)from, to - from);
#endif
}

Result allocate(Context *c, size_t n, uintptr_t &at) {
    Device *d = c->device;
    if (!n) return INVALID_VALUE;
    const size_t size = up(n, alignment);
    if (size < n || size > freeMemory(d)) return OUT_OF_MEMORY;
    Block b = {0, n, c, nullptr, up(size, page) + 2 * stretch};
    b.base = mmap(nullptr, b.mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (b.base == MAP_FAILED) return OUT_OF_MEMORY;
    b.at = (uintptr_t)b.base + b.mapped - stretch - size;
    if (size >= 4 << 20) madvise((void *)b.data(), b.end() - b.data(), MADV_HUGEPAGE);  // to fill it takes long
    Block &kept = blocks[b.at] = b;
    set(kept, Block::OPEN);
    reached = nullptr;
    memset((void *)b.at, 0xff, n);
    forbid(b.data(), b.at);
    forbid(b.at + n, b.end());
    d->used += size;
    at = b.at;
    return SUCCESS;
}
Result release(uintptr_t at) {
    const auto i = blocks.find(at);
    if (i == blocks.end()) return INVALID_VALUE;
    const Block b = i->second;
    blocks.erase(i);
    b.context->device->used -= up(b.size, alignment);
#ifdef CUEMU_ASAN
    __asan_unpoison_memory_region((void *)b.data(), b.end() - b.data());
#endif
    mmap(b.base, b.mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    freed.push_back(b);
    freedBytes += b.mapped;
    while (freedBytes > quarantine || freed.size() > 4096) {
        munmap(freed[0].base, freed[0].mapped);
        freedBytes -= freed[0].mapped;
        freed.pop_front();
    }
    return SUCCESS;
}
void releaseAll(Context *c) {
    for (auto i = blocks.begin(); i != blocks.end();) {
        const Block b = (i++)->second;
        if (b.context == c) release(b.at);
    }
}
size_t freeMemory(const Device *d) {
    return d->total > d->used ? d->total - d->used : 0;
}

bool intact() {
#ifndef CUEMU_ASAN
    auto ones = [](uintptr_t from, uintptr_t to) {  // the end of the ones that begin there
        while (from < to && *(const unsigned char *)from == 0xff) from++;
        return from;
    };
    for (auto &i : blocks) {
        const Block &b = i.second;
        if (b.state != Block::OPEN) continue;
        const uintptr_t front = std::max(b.data(), b.at - alignment), back = b.at + b.size;
        uintptr_t p = ones(front, b.at);
        if (p == b.at && (p = ones(back, b.end())) == b.end()) continue;
        fprintf(stderr, "cuemu: written to%s\n", describe((void *)p));
        memset((void *)front, 0xff, b.at - front);
        memset((void *)back, 0xff, b.end() - back);
        return false;
    }
#endif
    return true;
}

static bool within(const void *p, size_t n, uintptr_t at, size_t size) {
    return (uintptr_t)p >= at && n <= size && (uintptr_t)p - at <= size - n;
}
bool lies(const void *p, size_t n, Side side, const char *what) {
    if (!n) return true;
    const Block *b = find(p);
    uintptr_t host = 0;
    const size_t pinned = b ? 0 : pinnedAround(p, host);
    if (b ? side != HOST && within(p, n, b->at, b->size)
          : side != DEVICE && !*describe(p) && (!pinned || within(p, n, host, pinned)))
        return true;
    fprintf(stderr, "cuemu: %s: %zu bytes at %p", what, n, p);
    if (b && side == HOST)
        fprintf(stderr, ", which is device memory\n");
    else if (b)
        fprintf(stderr, ", where an allocation on GPU %d has %zu bytes left\n", b->context->device->ordinal,
                (size_t)(b->at + b->size - (uintptr_t)p));
    else if (side != DEVICE && pinned)
        fprintf(stderr, ", where pinned memory has %zu bytes left\n", (size_t)(host + pinned - (uintptr_t)p));
    else
        fprintf(stderr, ", which is no %smemory%s\n", side == DEVICE ? "device " : "", describe(p));
    return false;
}
bool touch(const void *p, size_t n, Side side, const char *what) {
    if (!lies(p, n, side, what)) return false;
    Block *b = n ? find(p) : nullptr;
    if (!b || b->state == Block::OPEN) return true;
    protect((uintptr_t)p / page * page, up((uintptr_t)p + n, page), PROT_READ | PROT_WRITE);
    b->state = Block::PARTLY;
    someOpen = true;
    reached = nullptr;
    return true;
}

}  // namespace emu
