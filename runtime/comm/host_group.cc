#include "runtime/comm/host_group.h"

#include "absl/strings/string_view.h"

namespace panthera {
namespace {

// The code as one byte, then the message; an OK status is the empty string.
std::string Encode(const absl::Status& status) {
  if (status.ok()) {
    return "";
  }
  std::string bytes(1, static_cast<char>(status.code()));
  bytes.append(status.message().data(), status.message().size());
  return bytes;
}

absl::Status Decode(const std::string& bytes) {
  return {static_cast<absl::StatusCode>(bytes[0]), absl::string_view(bytes).substr(1)};
}

}  // namespace

absl::Status Agree(HostGroup& group, const absl::Status& status) {
  for (const std::string& bytes : group.AllGather(Encode(status))) {
    if (!bytes.empty()) {
      return Decode(bytes);
    }
  }
  return absl::OkStatus();
}

}  // namespace panthera
