// Marks for code that a C++ compiler and nvcc both compile: the same source on CPU and GPU.
//
// Invariants
//   1. What is marked uses no standard library, no exceptions, no allocation and no global state.
//
// It decides nothing about the format.
#pragma once

#if defined(__CUDACC__)
#define INGOT_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define INGOT_HOST_DEVICE inline
#endif
