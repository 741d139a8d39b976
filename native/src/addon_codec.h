// The codec functions of the addon (see addon_codec.cc).
//
// Invariants
//   1. add_codec is called once per environment, by the addon's initialiser.
#pragma once

#include <napi.h>

namespace ingot_addon {

void add_codec(Napi::Env env, Napi::Object exports);

}  // namespace ingot_addon
