// Modules and launches. A module's text is looked at, but what runs are the kernels that g++ compiled.
#include "driver.h"
#include <stdarg.h>
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

// means reports whether a kernel is meant by a name: its own, or one that leaves out the type, _f32 or _bf16.
static bool means(const std::string &name, const std::string &kernel) {
    return name == "*" || kernel == name || kernel == name + "_f32" || kernel == name + "_bf16";
}
void armFailure(Context *c) {
    const char *fail = getenv("LIFT_EMU_FAIL");
    if (!fail || !*fail) return;
    const char *colon = strchr(fail, ':');
    char *end = nullptr;
    c->failAt = colon ? strtol(colon + 1, &end, 10) : 0;
    c->failure = end && !strcmp(end, ":hang") ? HANGS : ILLEGAL_ADDRESS;
    if (c->failAt < 1 || (*end && c->failure != HANGS))
        die("LIFT_EMU_FAIL=%s: KERNEL:N is wanted, N from 1 on, or KERNEL:N:hang", fail);
    c->failName.assign(fail, colon);
    std::string near;
    for (const cuemu::Kernel *k = kernels; k; k = k->next) {
        if (means(c->failName, k->name)) return;
        if (!strncmp(k->name, c->failName.c_str(), 3))
            near += std::string(near.empty() ? ": there are " : ", ") + k->name;
    }
    die("LIFT_EMU_FAIL=%s: no kernel has that name%s", fail, near.c_str());
}
// fails tells whether LIFT_EMU_FAIL means this launch.
static bool fails(Context *c, const char *name) {
    if (!c->failAt || !means(c->failName, name) || --c->failAt) return false;
    fprintf(stderr, "cuemu: GPU %d: %s %s, as LIFT_EMU_FAIL says\n", c->device->ordinal, name,
            c->failure == HANGS ? "hangs" : "fails");
    return true;
}

static Result launch(Context *c, const cuemu::Launch &l) {
    if (fails(c, l.kernel->name)) return c->failure;
    reach(c);
    cuemu::Outcome end = cuemu::run(l);
    if (end == cuemu::DONE && !intact()) {
        end = cuemu::ILLEGAL;
        fprintf(stderr, "  by kernel %s\n", l.kernel->name);
    }
    if (end == cuemu::DONE) return SUCCESS;
    fprintf(stderr, "  on GPU %d\n", c->device->ordinal);
    return end == cuemu::MISALIGNED ? MISALIGNED_ADDRESS : ILLEGAL_ADDRESS;
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
    if (v < 0 || (size_t)v > sharedLimit()) {
        fprintf(stderr, "cuemu: cuFuncSetAttribute: %d bytes of dynamic shared memory for %s; a block may have %zu\n",
                v, f->kernel->name, sharedLimit());
        return INVALID_VALUE;
    }
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

// refuse says why a launch cannot be.
__attribute__((format(printf, 3, 4))) static Result refuse(const cuemu::Kernel *k, Result r, const char *why, ...) {
    va_list list;
    va_start(list, why);
    fprintf(stderr, "cuemu: launch of %s: ", k->name);
    vfprintf(stderr, why, list);
    fprintf(stderr, "\n");
    return r;
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
    if (!s) return INVALID_HANDLE;
    if (f->module->context != c || s->lane.context != c)
        return refuse(k, INVALID_HANDLE,
                      "the current context is that of GPU %d, its module's of GPU %d, the stream's of GPU %d",
                      c->device->ordinal, f->module->context->device->ordinal, s->lane.context->device->ordinal);
    if (!gx || !gy || !gz || gx > 0x7fffffff || gy > 65535 || gz > 65535)
        return refuse(k, INVALID_VALUE, "a grid of %u x %u x %u blocks", gx, gy, gz);
    if (!bx || !by || !bz || bx > 1024 || by > 1024 || bz > 64 || bx * by * bz > cuemu::maxThreads)
        return refuse(k, INVALID_VALUE, "a block of %u x %u x %u threads; the most is %u", bx, by, bz,
                      cuemu::maxThreads);
    if (bx * by * bz > k->maxThreads)
        return refuse(k, LAUNCH_OUT_OF_RESOURCES, "a block of %u threads; its __launch_bounds__ say %u", bx * by * bz,
                      k->maxThreads);
    if (shared > f->maxDynamic)
        return refuse(k, INVALID_VALUE, "%u bytes of dynamic shared memory; cuFuncSetAttribute has allowed %zu", shared,
                      f->maxDynamic);
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
