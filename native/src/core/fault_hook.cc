// See fault_hook.h.
#include "fault_hook.h"

#include <cerrno>
#include <cstdlib>
#include <sstream>

#include "core_limits.h"

namespace ingot {
namespace {

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);) parts.push_back(part);
  return parts;
}

bool parse_kind(const std::string& text, IoKind& kind) {
  if (text == "read") kind = IoKind::read;
  else if (text == "write") kind = IoKind::write;
  else if (text == "flush") kind = IoKind::flush;
  else if (text == "source") kind = IoKind::source;
  else return false;
  return true;
}

bool parse_effect(const std::string& text, InjectedFault& fault) {
  using Effect = InjectedFault::Effect;
  fault.effect = Effect::fail;
  if (text == "EIO") fault.errno_value = EIO;
  else if (text == "ENOSPC") fault.errno_value = ENOSPC;
  else if (text == "EAGAIN") fault.errno_value = EAGAIN;
  else if (text == "EINTR") fault.errno_value = EINTR;
  else if (text == "short") fault.effect = Effect::shorten;
  else if (text == "zero") fault.effect = Effect::zero;
  else if (text.rfind("hang=", 0) == 0) {
    fault.effect = Effect::hang;
    fault.hang_ms = static_cast<uint32_t>(std::strtoul(text.c_str() + 5, nullptr, 10));
  } else {
    return false;
  }
  return true;
}

}  // namespace

Status FaultHook::parse(const std::string& text, Rule& rule) {
  const Status bad("E_USAGE", 0, "fault rule '" + text + "' is not kind[@slot]:k:effect:once|sticky");
  const std::vector<std::string> parts = split(text, ':');
  if (parts.size() != 4) return bad;
  const std::vector<std::string> target = split(parts[0], '@');
  if (target.empty() || target.size() > 2 || !parse_kind(target[0], rule.kind)) return bad;
  if (target.size() == 2) rule.slot = std::strtoll(target[1].c_str(), nullptr, 10);
  rule.at = std::strtoull(parts[1].c_str(), nullptr, 10);
  rule.late = parts[2] == "late" && rule.kind == IoKind::write;
  if (rule.at == 0 || (!rule.late && !parse_effect(parts[2], rule.fault))) return bad;
  if (parts[3] != "once" && parts[3] != "sticky") return bad;
  rule.fault.sticky = parts[3] == "sticky";
  return {};
}

Status FaultHook::configure(const char* rules) {
  std::vector<Rule> parsed;
  for (const std::string& text : split(rules == nullptr ? "" : rules, ',')) {
    if (text.empty()) continue;
    if (parsed.size() == kFaultRulesMax) return {"E_USAGE", 0, "more than 16 fault rules"};
    Rule rule;
    if (Status status = parse(text, rule); !status.ok()) return status;
    parsed.push_back(rule);
  }
  const std::lock_guard lock(mutex_);
  rules_ = std::move(parsed);
  late_slots_.clear();
  for (auto& counter : issued_) counter.store(0, std::memory_order_relaxed);
  armed_.store(!rules_.empty(), std::memory_order_release);
  return {};
}

InjectedFault FaultHook::next(IoKind kind, uint32_t slot) {
  issued_[static_cast<size_t>(kind)].fetch_add(1, std::memory_order_relaxed);
  if (!armed_.load(std::memory_order_acquire)) return {};
  const std::lock_guard lock(mutex_);
  if (kind == IoKind::flush && late_slots_.erase(slot) > 0) {
    return {InjectedFault::Effect::fail, false, EIO, 0};
  }
  for (Rule& rule : rules_) {
    if (rule.kind != kind || (rule.slot >= 0 && rule.slot != slot)) continue;
    ++rule.seen;
    if (rule.seen != rule.at && !(rule.fault.sticky && rule.seen > rule.at)) continue;
    if (!rule.late) return rule.fault;
    late_slots_.insert(slot);
    return {};
  }
  return {};
}

}  // namespace ingot
