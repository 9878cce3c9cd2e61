// The emulated driver's entry points, for the tests.
#pragma once
#include <stddef.h>
#include <stdint.h>

extern "C" {
typedef void *Handle;
typedef uintptr_t Ptr;
int cuInit(unsigned);
int cuDeviceGetCount(int *);
int cuDeviceGet(int *, int);
int cuDeviceTotalMem_v2(size_t *, int);
int cuDeviceGetPCIBusId(char *, int, int);
int cuDeviceGetAttribute(int *, int, int);
int cuDevicePrimaryCtxRetain(Handle *, int);
int cuDevicePrimaryCtxRelease_v2(int);
int cuCtxSetCurrent(Handle);
int cuCtxSynchronize();
int cuCtxEnablePeerAccess(Handle, unsigned);
int cuMemGetInfo_v2(size_t *, size_t *);
int cuMemAlloc_v2(Ptr *, size_t);
int cuMemFree_v2(Ptr);
int cuMemAllocAsync(Ptr *, size_t, Handle);
int cuMemFreeAsync(Ptr, Handle);
int cuMemHostAlloc(void **, size_t, unsigned);
int cuMemFreeHost(void *);
int cuMemcpyHtoD_v2(Ptr, const void *, size_t);
int cuMemcpyDtoH_v2(void *, Ptr, size_t);
int cuMemcpyHtoDAsync_v2(Ptr, const void *, size_t, Handle);
int cuMemcpyDtoHAsync_v2(void *, Ptr, size_t, Handle);
int cuMemcpyPeerAsync(Ptr, Handle, Ptr, Handle, size_t, Handle);
int cuMemsetD8_v2(Ptr, unsigned char, size_t);
int cuMemsetD32Async(Ptr, unsigned, size_t, Handle);
int cuModuleLoadData(Handle *, const void *);
int cuModuleGetFunction(Handle *, Handle, const char *);
int cuFuncSetAttribute(Handle, int, int);
int cuLaunchKernel(Handle, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, Handle, void **,
                   void **);
int cuStreamCreate(Handle *, unsigned);
int cuStreamDestroy_v2(Handle);
int cuStreamSynchronize(Handle);
int cuStreamQuery(Handle);
int cuStreamWaitEvent(Handle, Handle, unsigned);
int cuEventCreate(Handle *, unsigned);
int cuEventDestroy_v2(Handle);
int cuEventRecord(Handle, Handle);
int cuEventSynchronize(Handle);
int cuEventQuery(Handle);
int cuEventElapsedTime(float *, Handle, Handle);
int cuStreamBeginCapture_v2(Handle, int);
int cuStreamEndCapture(Handle, Handle *);
int cuGraphInstantiateWithFlags(Handle *, Handle, uint64_t);
int cuGraphLaunch(Handle, Handle);
int cuGraphDestroy(Handle);
int cuGraphExecDestroy(Handle);
int cuGetErrorName(int, const char **);
int cuTexRefSetFlags();
int cublasCreate_v2(Handle *);
int cublasDestroy_v2(Handle);
int cublasSetStream_v2(Handle, Handle);
int cublasSetWorkspace_v2(Handle, Ptr, size_t);
int cublasGemmEx(Handle, int, int, int, int, int, const void *, Ptr, int, int, Ptr, int, int, const void *, Ptr, int,
                 int, int, int);
int cublasGemmStridedBatchedEx(Handle, int, int, int, int, int, const void *, Ptr, int, int, long long, Ptr, int, int,
                               long long, const void *, Ptr, int, int, long long, int, int, int);
}
