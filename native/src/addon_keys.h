// The key functions of the addon (see addon_keys.cc).
//
// Invariants
//   1. add_keys is called once per environment, by the addon's initialiser.
#pragma once

#include <napi.h>

namespace ingot_addon {

void add_keys(Napi::Env env, Napi::Object exports);

}  // namespace ingot_addon
