// Modules and launches. A module's text is looked at, but what runs are the kernels that g++ compiled.
#include "driver.h"
#include <stdlib.h>

namespace emu {

struct Function;
struct Module {
    Context *context;
    std::map<std::string, std::unique_ptr<Function>> functions;
};
struct Function {
    const cuemu::Kernel *kernel;
    Module *module;
    size_t maxDynamic = 48 << 10;  // of shared memory, until cuFuncSetAttribute allows more
};

static cuemu::Kernel *kernels;
static const cuemu::Kernel *kernel(const std::string &name) {
    for (const cuemu::Kernel *k = kernels; k; k = k->next)
        if (name == k->name) return k;
    return nullptr;
}

// The oldest driver that takes PTX of a version, as 10 times both.
static int driverFor(int ptx) {
    static const std::map<int, int> of = {{70, 11000}, {71, 11010}, {72, 11020}, {73, 11030}, {74, 11040}, {75, 11050},
                                          {76, 11060}, {77, 11070}, {78, 11080}, {80, 12000}, {81, 12010}, {82, 12020},
                                          {83, 12030}, {84, 12040}, {85, 12050}, {86, 12070}, {87, 12080}, {88, 12090},
                                          {90, 13000}, {91, 13010}, {92, 13020}};
    const auto i = of.lower_bound(ptx);
    return i == of.end() ? 1 << 30 : i->second;
}

// check looks at a module's beginning: comments, .version, .target.
static Result check(const char *text, std::string &why) {
    auto skip = [&] {
        for (;;) {
            while (*text == ' ' || *text == '\t' || *text == '\r' || *text == '\n') text++;
            if (text[0] != '/' || text[1] != '/') return;
            while (*text && *text != '\n') text++;
        }
    };
    int major, minor, sm, driver;
    skip();
    if (strncmp(text, ".version", 8))
        return why = "the image is no PTX: it does not begin with .version", INVALID_IMAGE;
    if (sscanf(text, ".version %d.%d", &major, &minor) != 2) return why = "PTX: .version is no version", INVALID_PTX;
    text = strchr(text, '\n');
    if (!text) return why = "PTX: nothing behind .version", INVALID_PTX;
    skip();
    if (sscanf(text, ".target sm_%d", &sm) != 1) return why = "PTX: no .target behind .version", INVALID_PTX;
    if (sm > 90) return why = "PTX for sm_" + std::to_string(sm) + "; this GPU is an sm_90", NO_BINARY_FOR_GPU;
    extern int cuDriverGetVersion(int *) asm("cuDriverGetVersion");
    cuDriverGetVersion(&driver);
    if (driverFor(10 * major + minor) > driver)
        return why = "PTX " + std::to_string(major) + "." + std::to_string(minor) + " wants a newer driver",
               UNSUPPORTED_PTX_VERSION;
    return SUCCESS;
}

// fails tells whether LIFT_EMU_FAIL names this launch.
static bool fails(Context *c, const char *name) {
    if (!c->failAt || (c->failName != "*" && c->failName != "any" && c->failName != name) || --c->failAt) return false;
    fprintf(stderr, "cuemu: GPU %d: %s fails, as LIFT_EMU_FAIL says\n", c->device->number, name);
    return true;
}

static Result launch(Context *c, const cuemu::Launch &l) {
    if (fails(c, l.kernel->name)) return ILLEGAL_ADDRESS;
    reach(c);
    const bool ok = cuemu::run(l);
    reachAll();
    if (ok) return SUCCESS;
    fprintf(stderr, "  on GPU %d\n", c->device->number);
    return ILLEGAL_ADDRESS;
}

}  // namespace emu

void cuemu::add(Kernel *k) {
    if (emu::kernel(k->name)) fprintf(stderr, "cuemu: two kernels are named %s\n", k->name), abort();
    k->next = emu::kernels;
    emu::kernels = k;
}

using namespace emu;

API cuModuleLoadDataEx(Module **m, const void *image, unsigned n, const int *options, void **values) {
    Guard g;
    Context *c;
    if (const Result e = usable(c)) return e;
    if (!image) return INVALID_VALUE;
    std::string why;
    if (const Result e = check((const char *)image, why)) {
        fprintf(stderr, "cuemu: cuModuleLoadData: %s\n", why.c_str());
        char *log = nullptr;
        size_t size = 0;
        for (unsigned i = 0; i < n; i++) {
            if (options[i] == 5) log = (char *)values[i];
            if (options[i] == 6) size = (uintptr_t)values[i] & 0xffffffff;
        }
        if (log && size) snprintf(log, size, "%s", why.c_str());
        return e;
    }
    *m = new Module{c, {}};
    return SUCCESS;
}
API cuModuleLoadData(Module **m, const void *image) {
    return cuModuleLoadDataEx(m, image, 0, nullptr, nullptr);
}
API cuModuleUnload(Module *m) {
    Guard g;
    Context *c;
    if (const Result e = usable(c)) return e;
    finish(m->context);
    delete m;
    return SUCCESS;
}
API cuModuleGetFunction(Function **f, Module *m, const char *name) {
    Guard g;
    const cuemu::Kernel *k = kernel(name);
    if (!k) return NOT_FOUND;
    auto &p = m->functions[name];
    if (!p) p.reset(new Function{k, m});
    *f = p.get();
    return SUCCESS;
}
API cuFuncSetAttribute(Function *f, int attribute, int v) {
    Guard g;
    if (attribute == 9) return SUCCESS;  // which part of the level 1 cache is shared memory
    if (attribute != 8) return NOT_SUPPORTED;
    if (v < 0 || (size_t)v > cuemu::maxShared) return INVALID_VALUE;
    f->maxDynamic = (size_t)v;
    return SUCCESS;
}
API cuFuncGetAttribute(int *v, int attribute, Function *f) {
    Guard g;
    switch (attribute) {
        case 0:
            *v = (int)f->kernel->maxThreads;
            return SUCCESS;
        case 5:  // PTX and binary version
        case 6:
            *v = 90;
            return SUCCESS;
        case 8:
            *v = (int)f->maxDynamic;
            return SUCCESS;
    }
    *v = 0;  // shared, constant and local memory, registers: not known
    return SUCCESS;
}
API cuFuncSetCacheConfig(Function *, int) {
    return SUCCESS;
}
API cuOccupancyMaxActiveBlocksPerMultiprocessor(int *n, Function *, int threads, size_t shared) {
    const int byThreads = threads > 0 ? 2048 / threads : 0;
    const int byShared = shared ? (int)((228 << 10) / (shared + 1024)) : 32;
    *n = std::min({byThreads, byShared, 32});
    return SUCCESS;
}

API cuLaunchKernel(Function *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void *handle, void **params, void **extra) {
    Guard g;
    Context *c;
    if (const Result e = usable(c)) return e;
    Stream *s = streamOf(handle);
    if (!f) return INVALID_HANDLE;
    const cuemu::Kernel *k = f->kernel;
    if (extra) return NOT_SUPPORTED;
    if (f->module->context != c || s->lane.context != c) return INVALID_HANDLE;
    if (!gx || !gy || !gz || gx > 0x7fffffff || gy > 65535 || gz > 65535) return INVALID_VALUE;
    if (!bx || !by || !bz || bx > 1024 || by > 1024 || bz > 64 || bx * by * bz > cuemu::maxThreads)
        return INVALID_VALUE;
    if (bx * by * bz > k->maxThreads) return LAUNCH_OUT_OF_RESOURCES;
    if (shared > f->maxDynamic) return INVALID_VALUE;
    // The arguments are copied now, each to its own 16 bytes or more.
    auto bytes = std::make_shared<std::vector<char>>();
    std::vector<size_t> at;
    for (unsigned i = 0; i < k->params; i++) {
        at.push_back(bytes->size());
        bytes->resize(bytes->size() + (k->sizes[i] + 15) / 16 * 16);
        memcpy(bytes->data() + at[i], params[i], k->sizes[i]);
    }
    return enqueue(s, [=] {
        void *args[256];
        for (size_t i = 0; i < at.size(); i++) args[i] = bytes->data() + at[i];
        return launch(c, {k, {gx, gy, gz}, {bx, by, bz}, shared, args});
    });
}
