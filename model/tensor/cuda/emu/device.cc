// Devices and contexts.
#include "driver.h"
#include <algorithm>
#include <mutex>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

namespace emu {

std::deque<Device> devices;
static std::recursive_mutex lock;
static int depth;  // of entry points within entry points
static std::set<Context *> contexts;
static thread_local std::vector<Context *> stack;

Guard::Guard() {
    lock.lock();
    depth++;
}
Guard::~Guard() {
    if (--depth == 0) unreach();
    lock.unlock();
}

void Guard::forever() {
    unreach();
    for (; depth; depth--) lock.unlock();
    for (;;) pause();
}

void die(const char *format, ...) {
    va_list list;
    va_start(list, format);
    fprintf(stderr, "cuemu: ");
    vfprintf(stderr, format, list);
    fprintf(stderr, "\n");
    _exit(2);
}
static long number(const char *name, long otherwise) {
    const char *s = getenv(name);
    if (!s || !*s) return otherwise;
    char *end;
    const long n = strtol(s, &end, 0);
    if (*end || n < 0) die("%s=%s: a number is wanted", name, s);
    return n;
}

// uuid is a GPU's as nvidia-smi shows it.
static std::string uuid(int number) {
    char text[48];
    snprintf(text, sizeof text, "GPU-6c696674-2d65-6d75-0000-0000000000%02x", number);  // "lift-emu"
    return text;
}

// visible lists the machine's GPUs that this process sees, as the driver does: those that CUDA_VISIBLE_DEVICES names,
// by number or by the beginning of "GPU-" and the UUID, up to the first that there is not or that it has named before.
static std::vector<int> visible() {
    static const char *const variable = getenv("CUDA_VISIBLE_DEVICES");
    static const bool all = !variable;
    static const std::string list = all ? "" : variable;  // read once
    const long n = number("LIFT_EMU_GPUS", 1);
    std::vector<int> numbers;
    for (int i = 0; all && i < n; i++) numbers.push_back(i);
    for (size_t at = 0; at < list.size();) {
        const size_t comma = std::min(list.find(',', at), list.size());
        const std::string name = list.substr(at, comma - at);
        at = comma + 1;
        char *end;
        long i = strtol(name.c_str(), &end, 10);
        if (name.compare(0, 4, "GPU-") == 0)
            for (i = 0; i < n && uuid((int)i).compare(0, name.size(), name); i++) continue;
        else if (name.empty() || *end)
            break;
        if (i < 0 || i >= n || std::count(numbers.begin(), numbers.end(), i)) break;
        numbers.push_back((int)i);
    }
    return numbers;
}
static size_t count;  // of GPUs to be seen

static int capability() {
    return (int)number("LIFT_EMU_CAPABILITY", 90);
}
size_t sharedLimit() {
    const int c = capability();
    const bool small = c == 86 || c == 89 || c >= 120;
    return (small ? 99 : c < 90 ? 163 : 227) << 10;
}

// configure reads the environment; what a device holds stays.
static void configure() {
    const size_t memory = (size_t)number("LIFT_EMU_MEMORY", 4l << 30);
    const std::vector<int> numbers = visible();
    count = numbers.size();
    for (size_t i = devices.size(); i < count; i++) devices.push_back({(int)i, numbers[i], memory});
    for (Device &d : devices) d.total = memory;
    cuemu::otherBits = (unsigned)number("LIFT_EMU_BITS", 0);
}
static Device *device(int i) {
    return i >= 0 && (size_t)i < devices.size() ? &devices[i] : nullptr;
}

const std::set<Context *> &all() {
    return contexts;
}
Context *current() {
    Context *c = stack.empty() ? nullptr : stack.back();
    return contexts.count(c) ? c : nullptr;
}
Result usable(Context *&c) {
    c = current();
    return c ? c->error : INVALID_CONTEXT;
}

static Context *create(Device *d) {
    configure();
    cuemu::about = describe;
    cuemu::catchFaults();
    Context *c = new Context{};
    c->device = d;
    c->null.lane.context = c;
    c->null.blocking = true;
    armFailure(c);
    contexts.insert(c);
    return c;
}
static void destroy(Context *c) {
    finish(c);
    releaseAll(c);
    for (Context *o : contexts) o->peers.erase(c);
    for (Stream *s : c->streams) delete s;
    contexts.erase(c);
    if (c->device->primary == c) c->device->primary = nullptr;
    delete c;
}

}  // namespace emu

using namespace emu;

API cuInit(unsigned) {
    Guard g;
    configure();
    return devices.empty() ? 100 : SUCCESS;  // no device
}
API cuDriverGetVersion(int *v) {
    *v = (int)number("LIFT_EMU_DRIVER_VERSION", 12090);
    return SUCCESS;
}
API cuDeviceGetCount(int *n) {
    Guard g;
    if (devices.empty()) return NOT_INITIALIZED;
    configure();
    *n = (int)count;
    return SUCCESS;
}
API cuDeviceGet(int *d, int i) {
    Guard g;
    if (i < 0 || (size_t)i >= count || !device(i)) return INVALID_DEVICE;
    *d = i;
    return SUCCESS;
}
API cuDeviceGetName(char *s, int n, int d) {
    if (!device(d)) return INVALID_DEVICE;
    snprintf(s, n, "lift emulated GPU");
    return SUCCESS;
}
API cuDeviceGetUuid(unsigned char *id, int d) {
    if (!device(d)) return INVALID_DEVICE;
    memset(id, 0, 16);
    memcpy(id, "lift-emu", 8);
    id[15] = (unsigned char)device(d)->number;
    return SUCCESS;
}
API cuDeviceGetUuid_v2(unsigned char *id, int d) {
    return cuDeviceGetUuid(id, d);
}
API cuDeviceGetPCIBusId(char *s, int n, int d) {
    if (!device(d)) return INVALID_DEVICE;
    snprintf(s, n, "0000:%02x:00.0", device(d)->number + 1);
    return SUCCESS;
}
API cuDeviceTotalMem_v2(size_t *n, int d) {
    Guard g;
    if (!device(d)) return INVALID_DEVICE;
    *n = device(d)->total;
    return SUCCESS;
}
API cuDeviceComputeCapability(int *major, int *minor, int d) {
    if (!device(d)) return INVALID_DEVICE;
    *major = capability() / 10, *minor = capability() % 10;
    return SUCCESS;
}
API cuDeviceGetAttribute(int *v, int attribute, int d) {
    if (!device(d)) return INVALID_DEVICE;
    static const std::map<int, int> values = {
        {1, 1024},                                     // threads of a block
        {2, 1024},                                     // its x, y, z
        {3, 1024},       {4, 64},    {5, 2147483647},  // the grid's x, y, z
        {6, 65535},      {7, 65535}, {8, 48 << 10},    // shared memory of a block
        {9, 64 << 10},                                 // constant memory
        {10, 32},                                      // warp
        {12, 65536},                                   // registers of a block
        {13, 1000000},                                 // kHz
        {14, 512},                                     // texture alignment
        {15, 1},                                       // copies beside kernels
        {16, 8},                                       // multiprocessors
        {19, 1},                                       // host memory can be mapped
        {31, 1},                                       // concurrent kernels
        {36, 1000000},                                 // kHz of the memory
        {37, 1024},                                    // bits of its bus
        {38, 4 << 20},                                 // level 2 cache
        {39, 2048},                                    // threads of a multiprocessor
        {40, 2},                                       // copy engines
        {41, 1},                                       // unified addresses
        {78, 1},                                       // stream priorities
        {81, 228 << 10},                               // shared memory of a multiprocessor
        {82, 65536},                                   // registers of one
        {106, 32},                                     // blocks of a multiprocessor
        {111, 1 << 10},                                // shared memory that the driver takes of a block
        {115, 1},                                      // memory pools
    };
    int capability[2];
    cuDeviceComputeCapability(&capability[0], &capability[1], d);
    if (attribute == 75 || attribute == 76) return *v = capability[attribute - 75], SUCCESS;
    if (attribute == 97) return *v = (int)sharedLimit(), SUCCESS;
    const auto i = values.find(attribute);
    *v = attribute == 33 ? device(d)->number + 1 : i == values.end() ? 0 : i->second;  // 33: the PCI bus
    return SUCCESS;
}

API cuDevicePrimaryCtxRetain(Context **c, int i) {
    Guard g;
    Device *d = device(i);
    if (!d) return INVALID_DEVICE;
    if (!d->primary) d->primary = create(d);
    d->retained++;
    *c = d->primary;
    return SUCCESS;
}
API cuDevicePrimaryCtxRelease_v2(int i) {
    Guard g;
    Device *d = device(i);
    if (!d) return INVALID_DEVICE;
    if (!d->primary || !d->retained) return INVALID_CONTEXT;
    if (!--d->retained) destroy(d->primary);
    return SUCCESS;
}
API cuDevicePrimaryCtxReset_v2(int i) {
    Guard g;
    Device *d = device(i);
    if (!d) return INVALID_DEVICE;
    if (d->primary) destroy(d->primary);
    d->retained = 0;
    return SUCCESS;
}
API cuDevicePrimaryCtxSetFlags_v2(int i, unsigned) {
    return device(i) ? SUCCESS : INVALID_DEVICE;
}
API cuDevicePrimaryCtxGetState(int i, unsigned *flags, int *active) {
    Guard g;
    Device *d = device(i);
    if (!d) return INVALID_DEVICE;
    *flags = 0, *active = d->primary != nullptr;
    return SUCCESS;
}

API cuCtxCreate_v2(Context **c, unsigned, int i) {
    Guard g;
    Device *d = device(i);
    if (!d) return INVALID_DEVICE;
    *c = create(d);
    stack.push_back(*c);
    return SUCCESS;
}
API cuCtxDestroy_v2(Context *c) {
    Guard g;
    if (!contexts.count(c)) return INVALID_CONTEXT;
    if (!stack.empty() && stack.back() == c) stack.pop_back();
    destroy(c);
    return SUCCESS;
}
API cuCtxSetCurrent(Context *c) {
    Guard g;
    if (c && !contexts.count(c)) return INVALID_CONTEXT;
    if (!stack.empty()) stack.pop_back();
    if (c) stack.push_back(c);
    return SUCCESS;
}
API cuCtxGetCurrent(Context **c) {
    Guard g;
    *c = current();
    return SUCCESS;
}
API cuCtxPushCurrent_v2(Context *c) {
    Guard g;
    if (!contexts.count(c)) return INVALID_CONTEXT;
    stack.push_back(c);
    return SUCCESS;
}
API cuCtxPopCurrent_v2(Context **c) {
    Guard g;
    if (stack.empty()) return INVALID_CONTEXT;
    if (c) *c = stack.back();
    stack.pop_back();
    return SUCCESS;
}
API cuCtxGetDevice(int *d) {
    Guard g;
    Context *c = current();
    if (!c) return INVALID_CONTEXT;
    *d = c->device->ordinal;
    return SUCCESS;
}
API cuCtxSynchronize() {
    Guard g;
    Context *c;
    Result e = usable(c);
    if (!e) e = mayWait();
    return e ? e : finish(c);
}
API cuCtxGetApiVersion(Context *, unsigned *v) {
    *v = 12090;
    return SUCCESS;
}
API cuCtxGetFlags(unsigned *f) {
    *f = 0;
    return SUCCESS;
}
API cuCtxGetStreamPriorityRange(int *least, int *greatest) {
    *least = 0, *greatest = -5;
    return SUCCESS;
}
API cuCtxSetLimit(int, size_t) {
    return SUCCESS;
}
API cuCtxSetCacheConfig(int) {
    return SUCCESS;
}

API cuDeviceCanAccessPeer(int *can, int a, int b) {
    if (!device(a) || !device(b)) return INVALID_DEVICE;
    *can = a != b;
    return SUCCESS;
}
API cuDeviceGetP2PAttribute(int *v, int attribute, int a, int b) {
    if (!device(a) || !device(b) || a == b) return INVALID_DEVICE;
    *v = attribute == 2;  // access is supported; natively atomic it is not
    return SUCCESS;
}
API cuCtxEnablePeerAccess(Context *peer, unsigned) {
    Guard g;
    Context *c;
    if (const Result e = usable(c)) return e;
    if (!contexts.count(peer) || peer == c) return INVALID_CONTEXT;
    return c->peers.insert(peer).second ? SUCCESS : PEER_ACCESS_ALREADY_ENABLED;
}
API cuCtxDisablePeerAccess(Context *peer) {
    Guard g;
    Context *c;
    if (const Result e = usable(c)) return e;
    return c->peers.erase(peer) ? SUCCESS : PEER_ACCESS_NOT_ENABLED;
}
