// See kernels.h. The build passes the folder of the fat binaries, or nothing.
#include "kernels.h"

#ifdef INGOT_FATBINS
// A fat binary says its own length; cuModuleLoadData wants it aligned to 8 bytes.
#define INGOT_EMBED(symbol, file)                                                           \
  asm(".pushsection .rodata\n.balign 64\n.global " #symbol "\n.hidden " #symbol "\n" #symbol \
      ":\n.incbin \"" INGOT_FATBINS "/" file "\"\n.byte 0\n.popsection\n");                  \
  extern "C" const unsigned char symbol[];
INGOT_EMBED(ingot_fatbin_fast, "decode_fast.fatbin")
INGOT_EMBED(ingot_fatbin_any, "decode_any.fatbin")
INGOT_EMBED(ingot_fatbin_sums, "crc64.fatbin")
INGOT_EMBED(ingot_fatbin_xor, "xor.fatbin")
#endif

namespace ingot::gpu {

const KernelImages& kernel_images() {
#ifdef INGOT_FATBINS
  static const KernelImages images{ingot_fatbin_fast, ingot_fatbin_any, ingot_fatbin_sums, ingot_fatbin_xor};
#else
  static const KernelImages images{};
#endif
  return images;
}

const char* kernel_architectures() {
#ifdef INGOT_FATBINS
  return INGOT_FATBIN_ARCHITECTURES;
#else
  return "";
#endif
}

}  // namespace ingot::gpu
