// Tensors in memory of their own, as DLPack (DLManagedTensorVersioned) wants them.
//
// Invariants
//   1. A tensor owns its memory, shape and strides; its deleter frees all of them, once, and needs nothing else alive.
//   2. On a GPU the memory is of the GPU's primary context, which the tensor holds itself.
//   3. The data address is a multiple of 256 bytes (of 4 KiB from 64 KiB on, so that O_DIRECT needs no bounce);
//      NULL for an empty tensor.
#pragma once

#include "../../third_party/dlpack/dlpack.h"
#include "records.h"

namespace ingot::reader {

/// Uninitialised memory of the tensor's size, on GPU `gpu` or (-1) the host. Errors: E_NATIVE (no memory), E_GPU,
/// E_UNSUPPORTED.
DLManagedTensorVersioned* make_dlpack_tensor(const StoredObject& tensor, int32_t gpu);

}  // namespace ingot::reader
