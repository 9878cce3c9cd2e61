// A symbol NAME jumps to lift_cuda_targets[i]. While that is 0 it asks lift_cuda_resolve, with the caller's arguments kept.
#if defined(__x86_64__)

#define LIFT_SYMBOL(name, i)                 \
    .globl name;                             \
    .hidden name;                            \
    .type name, @function;                   \
    name : movq lift_cuda_targets + 8 * i(%rip), %r11; \
    testq %r11, %r11;                        \
    je 1f;                                   \
    jmp *%r11;                               \
    1 : movl $i, %r11d;                      \
    jmp first_call;                          \
    .size name, .- name;

    .text
    // r11 is the symbol's number. At entry the stack is 8 off a multiple of 16; seven pushes make it one.
first_call:
    pushq %rax
    pushq %rdi
    pushq %rsi
    pushq %rdx
    pushq %rcx
    pushq %r8
    pushq %r9
    subq $128, %rsp
    movups %xmm0, (%rsp)
    movups %xmm1, 16(%rsp)
    movups %xmm2, 32(%rsp)
    movups %xmm3, 48(%rsp)
    movups %xmm4, 64(%rsp)
    movups %xmm5, 80(%rsp)
    movups %xmm6, 96(%rsp)
    movups %xmm7, 112(%rsp)
    movl %r11d, %edi
    call lift_cuda_resolve
    movq %rax, %r11
    movups (%rsp), %xmm0
    movups 16(%rsp), %xmm1
    movups 32(%rsp), %xmm2
    movups 48(%rsp), %xmm3
    movups 64(%rsp), %xmm4
    movups 80(%rsp), %xmm5
    movups 96(%rsp), %xmm6
    movups 112(%rsp), %xmm7
    addq $128, %rsp
    popq %r9
    popq %r8
    popq %rcx
    popq %rdx
    popq %rsi
    popq %rdi
    popq %rax
    jmp *%r11

#elif defined(__aarch64__)

#define LIFT_SYMBOL(name, i)                      \
    .globl name;                                  \
    .hidden name;                                 \
    .type name, %function;                        \
    name : adrp x16, lift_cuda_targets + 8 * i;   \
    add x16, x16, :lo12:lift_cuda_targets + 8 * i; \
    ldr x16, [x16];                               \
    cbz x16, 1f;                                  \
    br x16;                                       \
    1 : mov w17, i;                               \
    b first_call;                                 \
    .size name, .- name;

    .text
    // w17 is the symbol's number.
first_call:
    stp x29, x30, [sp, -224]!
    mov x29, sp
    stp x0, x1, [sp, 16]
    stp x2, x3, [sp, 32]
    stp x4, x5, [sp, 48]
    stp x6, x7, [sp, 64]
    str x8, [sp, 80]
    stp q0, q1, [sp, 96]
    stp q2, q3, [sp, 128]
    stp q4, q5, [sp, 160]
    stp q6, q7, [sp, 192]
    mov w0, w17
    bl lift_cuda_resolve
    mov x16, x0
    ldp x0, x1, [sp, 16]
    ldp x2, x3, [sp, 32]
    ldp x4, x5, [sp, 48]
    ldp x6, x7, [sp, 64]
    ldr x8, [sp, 80]
    ldp q0, q1, [sp, 96]
    ldp q2, q3, [sp, 128]
    ldp q4, q5, [sp, 160]
    ldp q6, q7, [sp, 192]
    ldp x29, x30, [sp], 224
    br x16

#else
#error "the trampoline knows x86-64 and aarch64"
#endif

#include "symbols.inc"

    .section .note.GNU-stack, "", %progbits
