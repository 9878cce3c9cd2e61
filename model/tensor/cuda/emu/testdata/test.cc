// The emulator's tests: `test NAME` runs one, which prints what is wrong and exits with 1. emu_test.go runs them all,
// in the environments that they ask for, and looks at what the emulator says on stderr.
#include "cu.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <future>
#include <map>
#include <string>
#include <thread>
#include <vector>

static int failures;
#define EXPECT(cond, ...)                                                                              \
    do {                                                                                               \
        if (!(cond)) failures++, printf("%s:%d: ", __FILE__, __LINE__), printf(__VA_ARGS__), puts(""); \
    } while (0)
#define OK(call)                                   \
    do {                                           \
        const int e_ = (call);                     \
        EXPECT(e_ == 0, "%s gives %d", #call, e_); \
    } while (0)
#define IS(want, call)                                                \
    do {                                                              \
        const int e_ = (call);                                        \
        EXPECT(e_ == (want), "%s gives %d, not %d", #call, e_, want); \
    } while (0)

static const char *image = "//\n.version 7.8\n.target sm_80\n.address_size 64\n";
static Handle context, module, stream;
static std::vector<Handle> contexts;

static Handle open(int device) {
    Handle c;
    OK(cuInit(0));
    OK(cuDevicePrimaryCtxRetain(&c, device));
    OK(cuCtxSetCurrent(c));
    return c;
}
static void open() {
    context = open(0);
    OK(cuModuleLoadData(&module, image));
    OK(cuStreamCreate(&stream, 1));
}
static Handle function(const char *name, Handle m = module) {
    Handle f = nullptr;
    OK(cuModuleGetFunction(&f, m, name));
    return f;
}
// launch passes the arguments as 8 bytes each, as Go does.
template <class... A>
static int launch(const char *name, int grid, int block, int shared, Handle s, A... a) {
    uint64_t words[] = {0, [](auto v) {
                            uint64_t w = 0;
                            memcpy(&w, &v, sizeof v);
                            return w;
                        }(a)...};
    void *params[sizeof...(A) + 1];
    for (size_t i = 0; i <= sizeof...(A); i++) params[i] = &words[i];
    return cuLaunchKernel(function(name), grid, 1, 1, block, 1, 1, shared, s, params + 1, nullptr);
}
template <class T>
struct Device {
    Ptr at = 0;
    size_t n;
    explicit Device(size_t n) : n(n) { OK(cuMemAlloc_v2(&at, n * sizeof(T))); }
    explicit Device(const std::vector<T> &v) : Device(v.size()) { OK(cuMemcpyHtoD_v2(at, v.data(), n * sizeof(T))); }
    std::vector<T> get() const {
        std::vector<T> v(n);
        OK(cuMemcpyDtoH_v2(v.data(), at, n * sizeof(T)));
        return v;
    }
};
static std::vector<float> ramp(size_t n, float scale = 1) {
    std::vector<float> v(n);
    for (size_t i = 0; i < n; i++) v[i] = scale * (float)((int)(i * 2654435761u >> 16) % 1000 - 500);
    return v;
}

static void elementwise() {
    open();
    const auto x = ramp(1000), y0 = ramp(1000, 0.5f);
    Device<float> dx(x), dy(y0);
    OK(launch("axpy", 4, 256, 0, stream, dy.at, dx.at, 3.0f, 1000));
    OK(cuStreamSynchronize(stream));
    const auto y = dy.get();
    for (size_t i = 0; i < x.size(); i++) EXPECT(y[i] == fmaf(3, x[i], y0[i]), "y[%zu] = %g", i, y[i]);
}

static void reductions() {
    open();
    const auto x = ramp(96 * 64);
    Device<float> dx(x), dy(192);
    for (int block : {32, 96, 256}) {
        const int blocks = (int)x.size() / block;
        OK(launch("sums", blocks, block, 0, stream, dy.at, dx.at));
        OK(cuStreamSynchronize(stream));
        const auto y = dy.get();
        for (int b = 0; b < blocks; b++) {
            float want = 0;
            for (int i = 0; i < block; i++) want += x[b * block + i];
            EXPECT(y[b] == want, "block %d of %d: %g, not %g", b, block, y[b], want);
        }
    }
    IS(701, launch("sums", 1, 512, 0, stream, dy.at, dx.at));  // launch bounds
}

// Without its barrier a kernel gives wrong results in every block.
static void races() {
    open();
    for (const std::string kind : {"reverse_static", "reverse_dynamic"})
        for (int block : {32, 33, 64, 256, 1024}) {
            const int blocks = 4;
            const auto x = ramp(blocks * block);
            Device<float> dx(x), good(x.size()), bad(x.size());
            OK(launch(kind.c_str(), blocks, block, 4 * block, stream, good.at, dx.at));
            OK(launch((kind + "_race").c_str(), blocks, block, 4 * block, stream, bad.at, dx.at));
            OK(cuStreamSynchronize(stream));
            const auto g = good.get(), b = bad.get();
            for (int k = 0; k < blocks; k++) {
                int wrong = 0;
                for (int i = 0; i < block; i++) {
                    EXPECT(g[k * block + i] == x[k * block + block - 1 - i], "%s: wrong with its barrier",
                           kind.c_str());
                    wrong += b[k * block + i] != g[k * block + i];
                }
                EXPECT(wrong, "%s: block %d of %d threads is right without its barrier", kind.c_str(), k, block);
            }
        }
    Device<float> y(2);
    for (const char *name : {"hand_last_race", "hand_first_race"}) {
        OK(launch(name, 2, 64, 0, stream, y.at));
        OK(cuStreamSynchronize(stream));
        const auto v = y.get();
        EXPECT(isnan(v[0]) != isnan(v[1]), "%s: %g and %g", name, v[0], v[1]);
    }
}

static void poison() {
    open();
    Device<float> y(64);
    for (float v : y.get()) EXPECT(isnan(v), "fresh memory holds %g", v);
    OK(launch("stale", 32, 64, 16, stream, y.at));
    OK(cuStreamSynchronize(stream));
    for (float v : y.get()) EXPECT(isnan(v), "shared memory held %g at the begin of a block", v);
    void *host;
    OK(cuMemHostAlloc(&host, 64, 0));
    EXPECT(isnan(*(float *)host), "fresh pinned memory holds %g", *(float *)host);
    OK(cuMemFreeHost(host));
}

static void collectives() {
    open();
    const int n = 96;
    Device<int> dy(8 * n);
    OK(launch("collectives", 1, n, 0, stream, dy.at));
    OK(cuStreamSynchronize(stream));
    const auto y = dy.get();
    for (int i = 0; i < n; i++) {
        const int lane = i % 32, g = lane / 8 * 8, *r = &y[8 * i];
        EXPECT(r[0] == (lane & 1 ? lane ^ 2 : (lane ^ 2) + 100), "lane %d of a part: %d", lane, r[0]);
        EXPECT(r[1] == 0x49249249, "ballot %x", r[1]);
        EXPECT(r[2] == (lane + 3 < g + 8 ? lane + 3 : lane), "down, lane %d: %d", lane, r[2]);
        EXPECT(r[3] == (lane - 3 >= g ? lane - 3 : lane), "up, lane %d: %d", lane, r[3]);
        EXPECT(r[4] == g + 1, "lane %d: %d", lane, r[4]);
        EXPECT(r[5] == 7, "votes of the block: %d", r[5]);
        EXPECT(r[6] == 2, "votes of the warp: %d", r[6]);
        EXPECT(r[7] == -1, "of a lane that has ended: %d", r[7]);
    }
    Device<int> dz(2 * n);
    OK(launch("exchange", 1, n, 0, stream, dz.at));
    OK(cuStreamSynchronize(stream));
    const auto z = dz.get();
    for (int i = 0; i < n; i++)
        for (int round = 0; round < 2; round++) {
            int want = 0;
            for (int l = 0; l < 32; l++)
                for (int k = 0; k < 5; k++) want += (l + 1) * ((i / 32 * 32 + l) * 10 + k + round);
            EXPECT(z[2 * i + round] == want, "exchange, thread %d: %d, not %d", i, z[2 * i + round], want);
        }
}

static void edges() {
    open();
    const std::vector<float> x = {0.5f,   1.5f, -2.5f,    1e10f,     -1e10f,      1e20f,
                                  -1e20f, NAN,  INFINITY, -INFINITY, 1.00390625f, 3e-40f};
    Device<float> dx(x);
    Device<long long> dy(6 * x.size());
    OK(launch("edges", 1, 1, 0, stream, dy.at, dx.at, (int)x.size()));
    OK(cuStreamSynchronize(stream));
    const auto y = dy.get();
    const long long big = 1ll << 62;
    const long long want[][5] = {{0, 0, 0, 0, 0x3f00},
                                 {2, 2, 2, 1, 0x3fc0},
                                 {-2, -2, 0, -2, 0xc020},
                                 {10000000000, 2147483647, 4294967295, 2147483647, 0x5015},
                                 {-10000000000, -2147483648ll, 0, -2147483648ll, 0xd015},
                                 {2 * (big - 1) + 1, 2147483647, 4294967295, 2147483647, 0x60ad},
                                 {-2 * big, -2147483648ll, 0, -2147483648ll, 0xe0ad},
                                 {-2 * big, 0, 0, 0, 0x7fff},
                                 {2 * (big - 1) + 1, 2147483647, 4294967295, 2147483647, 0x7f80},
                                 {-2 * big, -2147483648ll, 0, -2147483648ll, 0xff80},
                                 {1, 1, 1, 1, 0x3f80},
                                 {0, 0, 0, 0, 0x0003}};
    for (size_t i = 0; i < x.size(); i++) {
        for (int k = 0; k < 5; k++)
            EXPECT(y[6 * i + k] == want[i][k], "%g, conversion %d: %lld, not %lld", x[i], k, y[6 * i + k], want[i][k]);
        const long long hi = (0xffffffffll * ((long long)i + 2)) >> 32;
        const int clz = i ? __builtin_clz((unsigned)i) : 32, pop = __builtin_popcount((unsigned)i);
        EXPECT(y[6 * i + 5] == hi * 100 + clz + pop, "integers of %zu: %lld", i, y[6 * i + 5]);
    }
}

// Work waits for what waits for it: a copy reads its source when it runs, and only an event makes a stream wait.
static void lazy() {
    open();
    Handle other, event;
    OK(cuStreamCreate(&other, 1));
    OK(cuEventCreate(&event, 2));
    const auto ones = std::vector<float>(256, 1.0f);
    std::vector<float> host(256, 2.0f);
    Device<float> x(256), y(ones);
    OK(cuMemcpyHtoDAsync_v2(x.at, host.data(), 1024, other));
    host.assign(256, 3.0f);  // too early
    OK(launch("axpy", 1, 256, 0, stream, y.at, x.at, 1.0f, 256));
    OK(cuCtxSynchronize());
    EXPECT(isnan(y.get()[0]), "a kernel that waits for no event gives %g", y.get()[0]);
    EXPECT(x.get()[0] == 3, "a host buffer used again too early gives %g", x.get()[0]);

    Device<float> u(256), v(ones);
    OK(cuMemcpyHtoDAsync_v2(u.at, host.data(), 1024, other));
    OK(cuEventRecord(event, other));
    OK(cuStreamWaitEvent(stream, event, 0));
    OK(launch("axpy", 1, 256, 0, stream, v.at, u.at, 1.0f, 256));
    OK(cuStreamSynchronize(stream));
    EXPECT(v.get()[0] == 4, "a kernel that waits for the copy gives %g", v.get()[0]);

    // The null stream waits for blocking streams, and they for it.
    Handle blocking;
    OK(cuStreamCreate(&blocking, 0));
    Device<float> w(ones);
    OK(cuMemsetD32Async(w.at, 0x40000000, 256, blocking));
    OK(launch("axpy", 1, 256, 0, nullptr, w.at, w.at, 1.0f, 256));
    OK(launch("axpy", 1, 256, 0, blocking, w.at, w.at, 1.0f, 256));
    OK(cuStreamSynchronize(blocking));
    EXPECT(w.get()[0] == 8, "null and blocking streams out of order: %g", w.get()[0]);
    OK(cuStreamDestroy_v2(other));
}

static void graphs() {
    open();
    Handle side, fork, join, graph, exec;
    OK(cuStreamCreate(&side, 1));
    OK(cuEventCreate(&fork, 2));
    OK(cuEventCreate(&join, 2));
    const auto ones = std::vector<float>(64, 1.0f);
    Device<float> x(ones), y(ones);
    std::vector<float> host(64, 0.0f);
    OK(cuStreamBeginCapture_v2(stream, 1));
    OK(cuMemcpyHtoDAsync_v2(x.at, host.data(), 256, stream));
    OK(cuEventRecord(fork, stream));
    OK(cuStreamWaitEvent(side, fork, 0));
    OK(launch("axpy", 1, 64, 0, side, x.at, x.at, 1.0f, 64));  // x = 2 host
    OK(cuEventRecord(join, side));
    OK(cuStreamWaitEvent(stream, join, 0));
    OK(launch("axpy", 1, 64, 0, stream, y.at, x.at, 1.0f, 64));  // y += x
    OK(cuStreamEndCapture(stream, &graph));
    OK(cuGraphInstantiateWithFlags(&exec, graph, 0));
    OK(cuGraphDestroy(graph));
    EXPECT(y.get()[0] == 1, "a capture ran");
    float want = 1;
    for (int i = 1; i <= 3; i++) {
        host.assign(64, (float)i);
        OK(cuGraphLaunch(exec, stream));
        OK(cuStreamSynchronize(stream));
        want += 2 * (float)i;
        EXPECT(y.get()[0] == want, "launch %d: %g, not %g", i, y.get()[0], want);
    }
    OK(cuGraphExecDestroy(exec));

    // What may not be captured.
    OK(cuStreamBeginCapture_v2(stream, 0));
    IS(900, cuStreamSynchronize(stream));
    IS(901, cuStreamEndCapture(stream, &graph));
    OK(cuStreamBeginCapture_v2(stream, 1));
    OK(cuEventRecord(fork, stream));
    OK(cuStreamWaitEvent(side, fork, 0));
    OK(launch("axpy", 1, 64, 0, side, x.at, x.at, 1.0f, 64));
    IS(904, cuStreamEndCapture(stream, &graph));
    OK(cuEventRecord(join, side));
    OK(cuStreamBeginCapture_v2(stream, 1));
    IS(905, cuStreamWaitEvent(stream, join, 0));
    IS(901, cuStreamEndCapture(stream, &graph));
    OK(cuStreamBeginCapture_v2(stream, 0));
    IS(900, cuMemcpyDtoH_v2(host.data(), x.at, 4));
    IS(901, cuStreamEndCapture(stream, &graph));
}

static void memory() {  // LIFT_EMU_MEMORY=1048576
    open();
    size_t free, total;
    OK(cuMemGetInfo_v2(&free, &total));
    EXPECT(total == 1 << 20 && free == total, "%zu of %zu free", free, total);
    Ptr a, b;
    OK(cuMemAlloc_v2(&a, 700 << 10));
    IS(2, cuMemAlloc_v2(&b, 400 << 10));
    OK(cuMemGetInfo_v2(&free, &total));
    EXPECT(free == 324 << 10, "%zu of %zu free", free, total);
    OK(cuMemFreeAsync(a, stream));
    OK(cuMemAllocAsync(&b, 400 << 10, stream));  // waits for the free
    OK(cuMemFree_v2(b));
    IS(1, cuMemFree_v2(b));
    IS(1, cuMemAlloc_v2(&b, 0));
    Device<float> x(16);
    std::vector<float> host(32);
    IS(1, cuMemcpyHtoD_v2(x.at, host.data(), 128));
    IS(1, cuMemcpyHtoD_v2((Ptr)host.data(), host.data(), 64));
    IS(1, cuMemcpyDtoH_v2((void *)x.at, x.at, 64));
    IS(1, launch("axpy", 1, 2048, 0, stream, x.at, x.at, 1.0f, 16));
    IS(1, launch("axpy", 1, 32, 64 << 10, stream, x.at, x.at, 1.0f, 16));
    OK(cuFuncSetAttribute(function("reverse_dynamic"), 8, 227 << 10));
    IS(1, cuFuncSetAttribute(function("reverse_dynamic"), 8, 228 << 10));
    OK(launch("reverse_dynamic", 1, 16, 227 << 10, stream, x.at, x.at));
    OK(cuCtxSynchronize());
    IS(801, cuTexRefSetFlags());
}

// What is freed or destroyed is gone, and what belongs to one context is of no use in another.
static void handles() {  // LIFT_EMU_GPUS=2
    Handle second = open(1), blas;
    open();
    Device<float> x(16);
    OK(cuMemFree_v2(x.at));
    IS(1, cuMemFree_v2(x.at));
    Device<float> y(16), z(16);
    IS(1, cuMemFree_v2(y.at + 4));
    OK(cuMemFreeAsync(y.at, stream));
    IS(1, cuMemFreeAsync(y.at, stream));
    void *host;
    OK(cuMemHostAlloc(&host, 64, 0));
    IS(1, cuMemcpyHtoD_v2(z.at, (char *)host + 32, 64));
    OK(cuMemcpyHtoD_v2(z.at, host, 64));
    OK(cuMemFreeHost(host));
    IS(1, cuMemFreeHost(host));

    Handle other, event, far;
    OK(cuStreamCreate(&other, 1));
    OK(cuEventCreate(&event, 2));
    OK(cublasCreate_v2(&blas));
    OK(cublasSetStream_v2(blas, other));
    OK(cuStreamDestroy_v2(other));
    IS(400, cuStreamSynchronize(other));
    IS(400, launch("axpy", 1, 16, 0, other, z.at, z.at, 1.0f, 16));
    float one = 1;
    IS(7, cublasGemmEx(blas, 0, 0, 1, 1, 1, &one, z.at, 0, 1, z.at, 0, 1, &one, z.at, 0, 1, 68, -1));
    OK(cuCtxSetCurrent(second));
    OK(cuStreamCreate(&far, 1));
    IS(400, launch("axpy", 1, 16, 0, far, z.at, z.at, 1.0f, 16));  // of a module of the other context
    IS(400, cuEventRecord(event, far));
    IS(1, cuMemcpyPeerAsync(z.at, second, z.at, context, 4, far));  // the memory is not the context's
    OK(cuEventDestroy_v2(event));
    IS(400, cuEventRecord(event, stream));
}

// Graphs that were captured and are gone leave events that none may wait for.
static void stale_event() {
    open();
    Handle event, graph, other;
    OK(cuStreamCreate(&other, 1));
    OK(cuEventCreate(&event, 2));
    OK(cuStreamBeginCapture_v2(stream, 1));
    OK(cuEventRecord(event, stream));
    OK(cuStreamEndCapture(stream, &graph));
    OK(cuGraphDestroy(graph));
    IS(907, cuStreamWaitEvent(other, event, 0));
    IS(907, cuEventSynchronize(event));
    OK(cuEventRecord(event, stream));
    OK(cuStreamWaitEvent(other, event, 0));
}

// Which GPUs the process sees: as many buses are printed.
static void visible() {
    int n;
    if (cuInit(0) == 100) return;
    OK(cuDeviceGetCount(&n));
    for (int i = 0; i < n; i++) {
        char bus[16];
        OK(cuDeviceGetPCIBusId(bus, sizeof bus, i));
        printf("%s ", bus);
    }
    IS(101, cuDeviceGet(&n, n));
}

// A buffer is filled again while a kernel of another stream may still read it: the kernel's stream comes first if it is
// the one that the host waits for; only LIFT_EMU_SHUFFLE finds that.
static void overtaken() {
    open();
    Handle copies;
    OK(cuStreamCreate(&copies, 1));
    int early = 0;
    for (int i = 0; i < 64; i++) {
        Device<float> x(std::vector<float>(64, 1.0f)), y(std::vector<float>(64, 0.0f));
        OK(launch("axpy", 1, 64, 0, stream, y.at, x.at, 1.0f, 64));
        OK(cuMemsetD32Async(x.at, 0x40000000, 64, copies));
        OK(cuStreamSynchronize(stream));
        early += y.get()[0] != 1;
        OK(cuStreamSynchronize(copies));
    }
    printf("%s\n", early ? "overtaken" : "in order");
}

static void touch() {
    open();
    Device<float> x(64);
    printf("%g\n", *(volatile float *)x.at);
}

// What a kernel does wrong is an error that stays; the process goes on.
template <class... A>
static void faultOf(int result, int blocks, int threads, int shared, const char *name, A... a) {
    OK(launch(name, blocks, threads, shared, stream, a...));
    IS(result, cuStreamSynchronize(stream));
    IS(result, cuCtxSynchronize());
    size_t n;
    IS(result, cuMemGetInfo_v2(&n, &n));
    IS(result, launch(name, blocks, threads, shared, stream, a...));
    OK(cuDevicePrimaryCtxRelease_v2(0));
    open();  // a new context works
    Device<float> y(std::vector<float>(64, 1.0f));
    OK(launch("axpy", 1, 64, 0, stream, y.at, y.at, 1.0f, 64));
    OK(cuStreamSynchronize(stream));
    EXPECT(y.get()[5] == 2, "after a fault: %g", y.get()[5]);
}
template <class... A>
static void fault(int blocks, int threads, int shared, const char *name, A... a) {
    faultOf(700, blocks, threads, shared, name, a...);
}
static void behind() {
    open();
    Device<float> y(64);
    fault(2, 64, 0, "store", y.at, 64ll, 1.0f);
}
static void before() {
    open();
    Device<float> y(64);
    fault(2, 64, 0, "store", y.at, -1024ll, 1.0f);
}
static void padding() {
    open();
    Device<float> y(50);
    fault(2, 64, 0, "store", y.at, 51ll, 1.0f);
}
static void workspace() {
    open();
    Handle blas;
    Device<float> y(64);
    OK(cublasCreate_v2(&blas));
    OK(cublasSetWorkspace_v2(blas, y.at, 256));
    fault(2, 64, 0, "store", y.at, 5ll, 1.0f);
}
static void null() {
    open();
    fault(2, 64, 0, "store", (Ptr)0, 5ll, 1.0f);
}
static void freed() {
    open();
    Device<float> x(64), y(64);
    OK(cuMemFree_v2(x.at));
    fault(2, 64, 0, "load", y.at, x.at, 7ll);
}
static void peerless() {  // LIFT_EMU_GPUS=2
    Handle second = open(1);
    Device<float> far(64);
    open();
    (void)second;
    Device<float> y(64);
    fault(2, 64, 0, "load", y.at, far.at, 7ll);
}
static void shared_static() {
    open();
    Device<float> y(64);
    fault(2, 64, 64, "store_shared", y.at, 8);
}
static void shared_dynamic() {
    open();
    Device<float> y(64);
    fault(2, 64, 64, "store_shared", y.at, 116);
}
static void misaligned() {
    open();
    Device<float> x(std::vector<float>(64, 1.0f)), y(64);
    OK(launch("load4", 2, 64, 0, stream, y.at, x.at, 8ll));
    OK(launch("store2", 2, 64, 0, stream, y.at, 6ll));
    OK(launch("load_byte", 2, 64, 0, stream, y.at, x.at, 4ll));
    OK(cuStreamSynchronize(stream));
    faultOf(716, 2, 64, 0, "load4", y.at, x.at, 6ll);
    Device<float> z(64);
    faultOf(716, 2, 64, 0, "store2", z.at, 5ll);
    Device<float> u(std::vector<float>(64, 1.0f)), v(64);
    faultOf(716, 2, 64, 0, "load_byte", v.at, u.at, 3ll);
}
static void overflow() {
    open();
    Device<float> y(64);
    fault(1, 1, 0, "overflow", y.at, 1000000);
}
static void diverge_block() {
    open();
    Device<float> y(64);
    fault(1, 64, 0, "diverge_block", y.at);
}
static void diverge_warp() {
    open();
    Device<float> y(64);
    fault(1, 64, 0, "diverge_warp", y.at);
}

static void inject() {  // LIFT_EMU_FAIL=axpy:3, or of all kernels that one
    open();
    Device<float> y(std::vector<float>(64, 1.0f));
    for (int i = 0; i < 2; i++) OK(launch("axpy", 1, 64, 0, stream, y.at, y.at, 1.0f, 64));
    OK(launch("sums", 1, 64, 0, stream, y.at, y.at));
    OK(cuStreamSynchronize(stream));
    OK(launch("axpy", 1, 64, 0, stream, y.at, y.at, 1.0f, 64));
    IS(700, cuStreamSynchronize(stream));
}
// A query does not wait: pending work is not ready the first time, and done by the second. It tells of a failure as a
// wait does.
static void queries() {  // LIFT_EMU_FAIL=axpy:3
    open();
    Handle event;
    OK(cuEventCreate(&event, 2));
    Device<float> y(std::vector<float>(64, 1.0f));
    OK(cuStreamQuery(stream));
    OK(cuEventQuery(event));  // never recorded
    for (int i = 0; i < 3; i++) {
        OK(launch("axpy", 1, 64, 0, stream, y.at, y.at, 1.0f, 64));
        if (!i) OK(cuEventRecord(event, stream));
        if (!i) IS(600, cuEventQuery(event));
        IS(600, cuStreamQuery(stream));
        IS(i < 2 ? 0 : 700, cuStreamQuery(stream));
        IS(i < 2 ? 0 : 700, cuEventQuery(event));
        if (i < 2) EXPECT(y.get()[0] == (float)(2 << i), "launch %d makes %g", i, y.get()[0]);
    }
    OK(cuEventDestroy_v2(event));
    IS(400, cuEventQuery(event));
}
// A kernel that hangs stops its GPU and what waits for it, and nothing else; a thread that waits for it does not keep
// the process.
static void hang() {  // LIFT_EMU_FAIL=axpy:1:hang LIFT_EMU_GPUS=2
    Handle one = open(1), well, waits, event;
    OK(cuStreamCreate(&well, 1));
    OK(cuStreamCreate(&waits, 1));
    Device<float> x(64);
    open();
    OK(cuEventCreate(&event, 2));
    Device<float> y(64);
    const float before[64] = {1};
    OK(cuMemcpyHtoDAsync_v2(y.at, before, 256, stream));
    OK(launch("axpy", 1, 64, 0, stream, y.at, y.at, 1.0f, 64));
    OK(cuEventRecord(event, stream));
    auto pending = [&] {
        for (int i = 0; i < 10; i++) {
            IS(600, cuStreamQuery(stream));
            IS(600, cuEventQuery(event));
            OK(launch("sums", 1, 64, 0, stream, y.at, y.at));  // there is room for it
        }
    };
    pending();
    std::promise<void> begins;
    std::thread([&] {
        OK(cuCtxSetCurrent(context));
        begins.set_value();
        cuStreamSynchronize(stream);
        EXPECT(false, "a wait for a GPU that hangs ends");
    }).detach();
    begins.get_future().wait();

    OK(cuCtxSetCurrent(one));
    OK(cuStreamWaitEvent(waits, event, 0));
    for (int i = 0; i < 1000; i++) {
        OK(cuMemsetD32Async(x.at, 0x3f800000, 64, well));
        OK(cuStreamSynchronize(well));
        EXPECT(x.get()[0] == 1, "GPU 1 has %g", x.get()[0]);
        IS(600, cuStreamQuery(waits));
    }
    OK(cuCtxSetCurrent(context));
    pending();
}
static void old_driver() {  // LIFT_EMU_DRIVER_VERSION=11040
    Handle m;
    open(0);
    OK(cuModuleLoadData(&m, ".version 7.4\n.target sm_80\n"));
    IS(222, cuModuleLoadData(&m, ".version 7.8\n.target sm_80\n"));
    IS(200, cuModuleLoadData(&m,
                             "\x7f"
                             "ELF"));
    IS(209, cuModuleLoadData(&m, ".version 7.4\n.target sm_100\n"));
    OK(cuModuleLoadData(&m, ".version 7.4\n.target sm_80\n"));
    Handle f;
    IS(500, cuModuleGetFunction(&f, m, "no_such_kernel"));
}

// Four GPUs, a thread each: each adds what the next one has, by peer copies and by reading the peer's memory.
static void gpus() {  // LIFT_EMU_GPUS=4
    int n = 0;
    OK(cuInit(0));
    OK(cuDeviceGetCount(&n));
    EXPECT(n == 4, "%d GPUs", n);
    std::vector<Handle> c(4), s(4), ready(4), m(4);
    std::vector<Ptr> x(4), y(4), z(4);
    for (int d = 0; d < 4; d++) {
        c[d] = open(d);
        OK(cuModuleLoadData(&m[d], image));
        OK(cuStreamCreate(&s[d], 1));
        OK(cuEventCreate(&ready[d], 2));
        for (auto p : {&x[d], &y[d], &z[d]}) OK(cuMemAlloc_v2(p, 1024));
        for (int o = 0; o < d; o++) {
            OK(cuCtxSetCurrent(c[d]));
            OK(cuCtxEnablePeerAccess(c[o], 0));
            IS(704, cuCtxEnablePeerAccess(c[o], 0));
            OK(cuCtxSetCurrent(c[o]));
            OK(cuCtxEnablePeerAccess(c[d], 0));
        }
    }
    std::vector<std::thread> threads;
    for (int d = 0; d < 4; d++) {
        OK(cuCtxSetCurrent(c[d]));
        OK(cuMemsetD32Async(x[d], 0x3f800000u + ((unsigned)d << 23), 256, s[d]));  // 2^d
        OK(cuMemsetD32Async(z[d], 0, 256, s[d]));
        OK(cuEventRecord(ready[d], s[d]));
    }
    for (int d = 0; d < 4; d++)
        threads.emplace_back([&, d] {
            const int next = (d + 1) % 4, opposite = (d + 2) % 4;
            OK(cuCtxSetCurrent(c[d]));
            for (int o : {next, opposite}) OK(cuStreamWaitEvent(s[d], ready[o], 0));
            OK(cuMemcpyPeerAsync(y[d], c[d], x[next], c[next], 1024, s[d]));
            Handle f = function("axpy", m[d]);
            float one = 1;
            int count = 256;
            for (Ptr from : {y[d], x[opposite]}) {
                void *params[] = {&z[d], &from, &one, &count};
                OK(cuLaunchKernel(f, 1, 1, 1, 256, 1, 1, 0, s[d], params, nullptr));
            }
            OK(cuStreamSynchronize(s[d]));
            float v[256];
            OK(cuMemcpyDtoH_v2(v, z[d], 1024));
            EXPECT(v[77] == (float)((1 << next) + (1 << opposite)), "GPU %d has %g", d, v[77]);
        });
    for (auto &t : threads) t.join();
}

static float widen(uint16_t h) {
    const uint32_t u = (uint32_t)h << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}
// Products against sums in the order of k, bit for bit; with LIFT_EMU_BITS, in the opposite one. What does not lie at a
// multiple of 16 bytes, here the second of many a batch, has the other of the two.
static void products() {
    open();
    const bool bits = getenv("LIFT_EMU_BITS");
    bool odd = false;
    Handle blas;
    OK(cublasCreate_v2(&blas));
    OK(cublasSetStream_v2(blas, stream));
    const int sizes[][3] = {{1, 1, 1}, {5, 7, 3}, {64, 64, 64}, {33, 12, 300}, {100, 1000, 17}, {300, 13, 513}};
    for (auto &size : sizes)
        for (int which = 0; which < 16; which++) {
            const int m = size[0], n = size[1], k = size[2], ta = which & 1, tb = which >> 1 & 1, batch = 2;
            const bool bf16 = which & 4, out16 = bf16 && which & 8;
            const int lda = (ta ? k : m) + 3, ldb = (tb ? n : k) + 1, ldc = m + 2;
            const size_t na = (size_t)lda * (ta ? m : k), nb = (size_t)ldb * (tb ? k : n), nc = (size_t)ldc * n;
            std::vector<uint16_t> a16(batch * na), b16(batch * nb);
            std::vector<float> a(batch * na), b(batch * nb);
            for (size_t i = 0; i < a.size(); i++)
                a16[i] = (uint16_t)(0x3f00 + i * 37 % 200), a[i] = bf16 ? widen(a16[i]) : 0.001f * (float)(i % 977);
            for (size_t i = 0; i < b.size(); i++)
                b16[i] = (uint16_t)(0xbe80 + i * 11 % 300), b[i] = bf16 ? widen(b16[i]) : 0.01f * (float)(i % 313) - 1;
            Device<float> da(a), db(b), dc(batch * nc);
            Device<uint16_t> ha(a16), hb(b16), hc(batch * nc);
            float alpha = 0.5f, beta = 0;
            auto call = [&] {
                return cublasGemmStridedBatchedEx(blas, ta, tb, m, n, k, &alpha, bf16 ? ha.at : da.at, bf16 ? 14 : 0,
                                                  lda, (long long)na, bf16 ? hb.at : db.at, bf16 ? 14 : 0, ldb,
                                                  (long long)nb, &beta, out16 ? hc.at : dc.at, out16 ? 14 : 0, ldc,
                                                  (long long)nc, batch, 68, -1);
            };
            auto backward = [&](size_t t) {
                const size_t bytes = t * (bf16 ? 2 : 4);
                const bool moved = (na * bytes | nb * bytes | nc * t * (out16 ? 2 : 4)) % 16;
                odd |= moved;
                return bits != moved;
            };
            auto got = [&](size_t i) { return out16 ? widen(hc.get()[i]) : dc.get()[i]; };
            OK(call());  // beta 0: the NaN in c is not read
            OK(cuStreamSynchronize(stream));
            const float c00 = got(0);
            beta = 2;
            OK(call());
            OK(cuStreamSynchronize(stream));
            const auto f = dc.get();
            const auto h = hc.get();
            float s00 = 0;
            for (int j = 0; j < k; j++) {
                const size_t i = backward(0) ? k - 1 - j : j;
                s00 = fmaf(a[ta ? i : i * lda], b[tb ? i * ldb : i], s00);
            }
            EXPECT(out16 || c00 == 0.5f * s00, "beta 0: %g, not %g", c00, 0.5f * s00);
            for (int t = 0; t < batch; t++) {
                const bool last = backward(t);
                for (int y = 0; y < n; y++)
                    for (int x = 0; x < ldc; x++) {
                        const size_t at = (size_t)t * nc + (size_t)y * ldc + x;
                        const float v = out16 ? widen(h[at]) : f[at];
                        if (x >= m) {
                            EXPECT(isnan(v), "%d x %d x %d: written between columns", m, n, k);
                            continue;
                        }
                        float s = 0;
                        for (int j = 0; j < k; j++) {
                            const size_t i = last ? k - 1 - j : j;
                            s = fmaf(a[t * na + (ta ? i + (size_t)x * lda : x + i * lda)],
                                     b[t * nb + (tb ? y + i * ldb : i + (size_t)y * ldb)], s);
                        }
                        const float want = 0.5f * s + 2 * (0.5f * s);
                        const bool same = out16 ? fabsf(v - want) <= fabsf(want) / 64 : v == want;
                        EXPECT(same, "%d x %d x %d, kind %d, (%d,%d): %g, not %g", m, n, k, which, x, y, v, want);
                        if (failures > 10) exit(1);
                    }
            }
        }
    EXPECT(odd, "no operand was anywhere but at a multiple of 16 bytes");
    float one = 1, zero = 0;
    Device<float> x(64), y(64);
    IS(13, cublasGemmEx(blas, 0, 0, 8, 8, 9, &one, x.at, 0, 8, x.at, 0, 9, &zero, y.at, 0, 8, 68, -1));
    IS(15, cublasGemmEx(blas, 0, 0, 8, 8, 8, &one, x.at, 0, 8, x.at, 0, 8, &zero, y.at, 14, 8, 68, -1));
    IS(7, cublasGemmEx(blas, 0, 0, 8, 8, 8, &one, x.at, 0, 7, x.at, 0, 8, &zero, y.at, 0, 8, 68, -1));
}

static const std::map<std::string, void (*)()> tests = {
    {"elementwise", elementwise},
    {"reductions", reductions},
    {"races", races},
    {"poison", poison},
    {"collectives", collectives},
    {"edges", edges},
    {"lazy", lazy},
    {"graphs", graphs},
    {"memory", memory},
    {"handles", handles},
    {"stale_event", stale_event},
    {"visible", visible},
    {"overtaken", overtaken},
    {"touch", touch},
    {"behind", behind},
    {"before", before},
    {"padding", padding},
    {"workspace", workspace},
    {"null", null},
    {"freed", freed},
    {"peerless", peerless},
    {"shared_static", shared_static},
    {"shared_dynamic", shared_dynamic},
    {"misaligned", misaligned},
    {"overflow", overflow},
    {"diverge_block", diverge_block},
    {"diverge_warp", diverge_warp},
    {"inject", inject},
    {"queries", queries},
    {"hang", hang},
    {"old_driver", old_driver},
    {"gpus", gpus},
    {"products", products},
};

int main(int argc, char **argv) {
    const auto t = tests.find(argc == 2 ? argv[1] : "");
    if (t == tests.end()) {
        for (const auto &e : tests) puts(e.first.c_str());
        return 2;
    }
    t->second();
    return failures != 0;
}
