// nvrtc compiles one CUDA source to PTX with a libnvrtc that it opens by path, so that neither a toolkit nor a GPU is
// needed: nvrtc LIBNVRTC OUT_DIR KERNELS_DIR/NAME.cu makes OUT_DIR/NAME.ptx. A warning is an error. The output holds no
// path and no date.
#include <dlfcn.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct program *program;

static void *lib;

static void fail(const char *what, const char *why) {
    fprintf(stderr, "nvrtc: %s: %s\n", what, why);
    exit(1);
}

static void *symbol(const char *name) {
    void *f = dlsym(lib, name);
    if (f == NULL) fail(name, dlerror());
    return f;
}

static char *read_file(const char *path) {
    FILE *f = fopen(path, "rb");
    if (f == NULL) fail(path, "cannot be opened");
    char *text = NULL;
    size_t n = 0, got;
    do {
        text = realloc(text, n + 65537);
        if (text == NULL) fail(path, "out of memory");
        n += got = fread(text + n, 1, 65536, f);
    } while (got > 0);
    if (ferror(f) || fclose(f) != 0) fail(path, "cannot be read");
    text[n] = 0;
    return text;
}

// text_of calls a pair of NVRTC's: the size of a text, and the text.
static char *text_of(program p, const char *size_name, const char *get_name) {
    int (*size)(program, size_t *) = symbol(size_name);
    int (*get)(program, char *) = symbol(get_name);
    size_t n = 0;
    if (size(p, &n) != 0) return NULL;
    char *text = calloc(n + 1, 1);
    if (text == NULL || get(p, text) != 0) return NULL;
    return text;
}

int main(int argc, char **argv) {
    if (argc != 4) fail("usage", "nvrtc LIBNVRTC OUT_DIR KERNELS_DIR/NAME.cu");
    const char *source = argv[3];
    char *dir = dirname(strdup(source)), *name = basename(strdup(source));
    char include[4096], out[4096];
    const int stem = (int)strcspn(name, ".");
    if (snprintf(include, sizeof include, "-I%s", dir) >= (int)sizeof include ||
        snprintf(out, sizeof out, "%s/%.*s.ptx", argv[2], stem, name) >= (int)sizeof out)
        fail(source, "path too long");
    lib = dlopen(argv[1], RTLD_NOW);
    if (lib == NULL) fail("libnvrtc", dlerror());
    int (*create)(program *, const char *, const char *, int, const char **, const char **) =
        symbol("nvrtcCreateProgram");
    int (*compile)(program, int, const char **) = symbol("nvrtcCompileProgram");

    // The program's name is the file's alone: names of local symbols are made from it.
    program p;
    if (create(&p, read_file(source), name, 0, NULL, NULL) != 0) fail(source, "nvrtcCreateProgram failed");

    // Without -fmad=false what is fused is the compiler's choice, path by path (kernels/lift.cuh).
    const char *options[] = {"-arch=compute_80", "-std=c++17", "-fmad=false", include};
    const int result = compile(p, sizeof options / sizeof *options, options);
    const char *log = text_of(p, "nvrtcGetProgramLogSize", "nvrtcGetProgramLog");
    if (log != NULL && *log != 0) fail(source, log);
    if (result != 0) {
        const char *(*why)(int) = symbol("nvrtcGetErrorString");
        fail(source, why(result));
    }

    const char *ptx = text_of(p, "nvrtcGetPTXSize", "nvrtcGetPTX");
    if (ptx == NULL) fail(source, "no PTX came out");
    FILE *f = fopen(out, "wb");
    if (f == NULL || fputs(ptx, f) < 0 || fclose(f) != 0) fail(out, "cannot be written");
    return 0;
}
