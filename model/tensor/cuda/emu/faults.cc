// A kernel that touches memory which is not there: a report with kernel, block and thread, and the launch fails; the
// process lives on, as it does on a GPU.
#include "fibers.h"
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <ucontext.h>
#ifdef CUEMU_ASAN
#include <sanitizer/asan_interface.h>
#endif

namespace cuemu {

const char *(*about)(const void *) = [](const void *) { return ""; };
static pthread_t runner;
static struct sigaction before[2];  // the handlers of SIGSEGV and SIGBUS, which other faults go to

// abandonFrom makes the context go on in abandon, on the stack that run was called on: the thread's own may be full.
static void abandonFrom(void *context) {
    ucontext_t *u = (ucontext_t *)context;
    const uintptr_t sp = ((uintptr_t)landing() - 256) & ~(uintptr_t)15;
#if defined(__x86_64__)
    u->uc_mcontext.gregs[REG_RSP] = sp - 8;  // as behind a call
    u->uc_mcontext.gregs[REG_RIP] = (greg_t)&abandon;
#elif defined(__aarch64__)
    u->uc_mcontext.sp = sp;
    u->uc_mcontext.pc = (uintptr_t)&abandon;
#endif
}

static void handle(int sig, siginfo_t *info, void *context) {
    const Stack *s = running();
    if (!s || !pthread_equal(runner, pthread_self())) {
        if (sig == SIGSEGV && info->si_code == SEGV_ACCERR && *about(info->si_addr))
            fprintf(stderr, "cuemu: host code touches device memory at %p%s\n", info->si_addr, about(info->si_addr));
        const struct sigaction &old = before[sig == SIGBUS];
        if (old.sa_flags & SA_SIGINFO) return old.sa_sigaction(sig, info, context);
        if (old.sa_handler != SIG_DFL && old.sa_handler != SIG_IGN) return old.sa_handler(sig);
        sigaction(sig, &old, nullptr);  // the instruction faults again
        return;
    }
    const char *at = (const char *)info->si_addr;
    if (at >= s->base && at < s->base + 4096)
        fprintf(stderr, "cuemu: stack overflow: a thread has %zu bytes\n  in %s\n", s->size, where());
    else
        fprintf(stderr, "cuemu: illegal address %p%s\n  in %s\n", (const void *)at, about(at), where());
    abandonFrom(context);
}

#ifdef CUEMU_ASAN
// reported adds to AddressSanitizer's report. The kernel goes on (halt_on_error=0), and fails at its end.
static void reported(const char *) {
    if (!running()) return;
    const void *at = __asan_get_report_address();
    fprintf(stderr, "cuemu: AddressSanitizer: illegal address %p%s\n  in %s\n", at, about(at), where());
    spoil();
}
#endif

void catchFaults() {
    static bool done;
    if (done && pthread_equal(runner, pthread_self())) return;
    runner = pthread_self();
    stack_t alternate;  // Go's threads have one
    if (!sigaltstack(nullptr, &alternate) && alternate.ss_flags & SS_DISABLE) {
        alternate = {};
        alternate.ss_size = 64 << 10;
        alternate.ss_sp = malloc(alternate.ss_size);
        sigaltstack(&alternate, nullptr);
    }
    if (done) return;
    done = true;
#ifdef CUEMU_ASAN
    __asan_set_error_report_callback(reported);
#endif
    struct sigaction a = {};
    a.sa_sigaction = handle;
    a.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&a.sa_mask);
    sigaction(SIGSEGV, &a, &before[0]);
    sigaction(SIGBUS, &a, &before[1]);
}

}  // namespace cuemu
