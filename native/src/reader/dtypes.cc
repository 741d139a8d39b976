// See dtypes.h.
#include "dtypes.h"

#include "../../third_party/dlpack/dlpack.h"

namespace ingot::reader {
namespace {

constexpr DType kDTypes[] = {
    {"BOOL", 8, kDLBool},
    {"F4", 4, kDLFloat4_e2m1fn},
    {"F6_E2M3", 6, kDLFloat6_e2m3fn},
    {"F6_E3M2", 6, kDLFloat6_e3m2fn},
    {"U8", 8, kDLUInt},
    {"I8", 8, kDLInt},
    {"F8_E5M2", 8, kDLFloat8_e5m2},
    {"F8_E4M3", 8, kDLFloat8_e4m3fn},
    {"F8_E8M0", 8, kDLFloat8_e8m0fnu},
    {"F8_E4M3FNUZ", 8, kDLFloat8_e4m3fnuz},
    {"F8_E5M2FNUZ", 8, kDLFloat8_e5m2fnuz},
    {"I16", 16, kDLInt},
    {"U16", 16, kDLUInt},
    {"F16", 16, kDLFloat},
    {"BF16", 16, kDLBfloat},
    {"I32", 32, kDLInt},
    {"U32", 32, kDLUInt},
    {"F32", 32, kDLFloat},
    {"C64", 64, kDLComplex},
    {"F64", 64, kDLFloat},
    {"I64", 64, kDLInt},
    {"U64", 64, kDLUInt},
};

}  // namespace

const DType* dtype_of_code(uint32_t code) {
  constexpr uint32_t count = sizeof kDTypes / sizeof kDTypes[0];
  return code >= 1 && code <= count ? &kDTypes[code - 1] : nullptr;
}

}  // namespace ingot::reader
