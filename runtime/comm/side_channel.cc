#include "runtime/comm/side_channel.h"

#include <fcntl.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

#include "runtime/base/check.h"
#include "runtime/base/status_macros.h"
#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>

namespace panthera {
namespace {

// Far more than any message has; whoever sends more is not one of us.
constexpr uint32_t kMostFrameBytes = 1 << 16;
// What may wait to be sent to a process that takes nothing.
constexpr size_t kMostQueuedBytes = 1 << 18;
constexpr size_t kSecretBytes = 16;
constexpr std::chrono::seconds kPatiencePerAddress(3);
// Descriptors that a process needs beside its connections.
constexpr rlim_t kOtherDescriptors = 256;

std::string RandomBytes() {
  std::string bytes(kSecretBytes, '\0');
  CHECK_EQ(getrandom(bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
  return bytes;
}

std::string HostName() {
  std::array<char, 256> name{};
  (void)gethostname(name.data(), name.size() - 1);
  return name.data();
}

// This host's addresses by which other hosts may reach it.
std::vector<std::string> OwnAddresses() {
  std::vector<std::string> texts;
  ifaddrs* all = nullptr;
  if (getifaddrs(&all) != 0) {
    return texts;
  }
  for (const ifaddrs* each = all; each != nullptr; each = each->ifa_next) {
    if (each->ifa_addr == nullptr || (each->ifa_flags & IFF_UP) == 0 ||
        (each->ifa_flags & IFF_LOOPBACK) != 0) {
      continue;
    }
    std::array<char, INET6_ADDRSTRLEN> text{};
    if (each->ifa_addr->sa_family == AF_INET) {
      const auto* address = reinterpret_cast<const sockaddr_in*>(each->ifa_addr);
      (void)inet_ntop(AF_INET, &address->sin_addr, text.data(), text.size());
      texts.insert(texts.begin(), text.data());
    } else if (each->ifa_addr->sa_family == AF_INET6) {
      const auto* address = reinterpret_cast<const sockaddr_in6*>(each->ifa_addr);
      if (!IN6_IS_ADDR_LINKLOCAL(&address->sin6_addr)) {
        (void)inet_ntop(AF_INET6, &address->sin6_addr, text.data(), text.size());
        texts.emplace_back(text.data());
      }
    }
  }
  freeifaddrs(all);
  return texts;
}

// A listening socket on a free port of all addresses; -1 with errno if there is none.
int ListenOn(int family) {
  const int descriptor = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (descriptor < 0) {
    return -1;
  }
  int bound = -1;
  if (family == AF_INET6) {
    const int off = 0;
    (void)setsockopt(descriptor, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
    sockaddr_in6 any = {};
    any.sin6_family = AF_INET6;
    bound = bind(descriptor, reinterpret_cast<const sockaddr*>(&any), sizeof(any));
  } else {
    sockaddr_in any = {};
    any.sin_family = AF_INET;
    bound = bind(descriptor, reinterpret_cast<const sockaddr*>(&any), sizeof(any));
  }
  if (bound != 0 || listen(descriptor, SOMAXCONN) != 0) {
    (void)close(descriptor);
    return -1;
  }
  return descriptor;
}

int PortOf(int descriptor) {
  sockaddr_storage address = {};
  socklen_t length = sizeof(address);
  CHECK_EQ(getsockname(descriptor, reinterpret_cast<sockaddr*>(&address), &length), 0);
  return address.ss_family == AF_INET6
             ? ntohs(reinterpret_cast<const sockaddr_in6*>(&address)->sin6_port)
             : ntohs(reinterpret_cast<const sockaddr_in*>(&address)->sin_port);
}

// Begins to connect; -1 if that fails at once.
int StartConnecting(const std::string& text, int port) {
  addrinfo hints = {};
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (getaddrinfo(text.c_str(), absl::StrCat(port).c_str(), &hints, &found) != 0) {
    return -1;
  }
  int descriptor = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (descriptor >= 0 && connect(descriptor, found->ai_addr, found->ai_addrlen) != 0 &&
      errno != EINPROGRESS) {
    (void)close(descriptor);
    descriptor = -1;
  }
  freeaddrinfo(found);
  return descriptor;
}

// One descriptor per rank, where the system grants them.
void AllowDescriptors(int ranks) {
  rlimit limit = {};
  const rlim_t wanted = static_cast<rlim_t>(ranks) + kOtherDescriptors;
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < wanted) {
    limit.rlim_cur = std::min(wanted, limit.rlim_max);
    (void)setrlimit(RLIMIT_NOFILE, &limit);
  }
}

}  // namespace

SideChannel::SideChannel(int rank, int size)
    : rank_(rank), size_(size), wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  CHECK_GE(wake_, 0) << "eventfd";
}

SideChannel::~SideChannel() {
  for (const std::unique_ptr<Link>& link : links_) {
    (void)close(link->descriptor);
  }
  if (listener_ >= 0) {
    (void)close(listener_);
  }
  (void)close(wake_);
}

absl::StatusOr<std::unique_ptr<SideChannel>> SideChannel::Open(HostGroup& group) {
  std::unique_ptr<SideChannel> channel(new SideChannel(group.rank(), group.size()));
  absl::StatusOr<std::string> hub = std::string();
  if (group.rank() == 0) {
    hub = channel->Listen();
  }
  RETURN_IF_ERROR(Agree(group, hub.status()));
  const std::string encoded = group.Broadcast(*hub, /*root=*/0);
  if (group.rank() != 0) {
    channel->DecodeHub(encoded);
  }
  return channel;
}

absl::StatusOr<std::string> SideChannel::Listen() {
  AllowDescriptors(size_);
  listener_ = ListenOn(AF_INET6);
  if (listener_ < 0) {
    listener_ = ListenOn(AF_INET);
  }
  if (listener_ < 0) {
    return absl::UnavailableError(absl::StrCat(
        "cannot open a TCP port: ", std::error_code(errno, std::generic_category()).message()));
  }
  hello_secret_ = RandomBytes();
  welcome_secret_ = RandomBytes();
  std::string encoded =
      absl::StrCat(hello_secret_, welcome_secret_, PortOf(listener_), "\n", HostName());
  for (const std::string& address : OwnAddresses()) {
    absl::StrAppend(&encoded, "\n", address);
  }
  return encoded;
}

void SideChannel::DecodeHub(const std::string& encoded) {
  CHECK_GE(encoded.size(), 2 * kSecretBytes);
  hello_secret_ = encoded.substr(0, kSecretBytes);
  welcome_secret_ = encoded.substr(kSecretBytes, kSecretBytes);
  const std::vector<std::string> lines = absl::StrSplit(encoded.substr(2 * kSecretBytes), '\n');
  int port = 0;
  CHECK(absl::SimpleAtoi(lines[0], &port)) << lines[0];
  if (lines[1] == HostName()) {
    addresses_.push_back({"127.0.0.1", port});
  }
  for (size_t i = 2; i < lines.size(); ++i) {
    addresses_.push_back({lines[i], port});
  }
  connect_deadline_ = Clock::now();
}

void SideChannel::TryNextAddress(std::vector<Event>& events) {
  while (!addresses_.empty()) {
    const Address address = addresses_.front();
    addresses_.erase(addresses_.begin());
    const int descriptor = StartConnecting(address.text, address.port);
    if (descriptor >= 0) {
      auto link = std::make_unique<Link>();
      link->descriptor = descriptor;
      link->connecting = true;
      links_.push_back(std::move(link));
      connect_deadline_ = Clock::now() + kPatiencePerAddress;
      return;
    }
  }
  events.push_back({Event::Kind::kUnreachable, 0, ""});
  connect_deadline_ = Clock::time_point::max();
}

void SideChannel::GiveUpConnecting(std::vector<Event>& events) {
  for (const std::unique_ptr<Link>& link : links_) {
    (void)close(link->descriptor);
  }
  links_.clear();
  TryNextAddress(events);
}

void SideChannel::Accept() {
  while (true) {
    const int descriptor = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (descriptor < 0) {
      if (errno == EMFILE || errno == ENFILE) {
        // It would be asked for again and again; these ranks find nobody who answers.
        (void)close(std::exchange(listener_, -1));
      }
      return;
    }
    auto link = std::make_unique<Link>();
    link->descriptor = descriptor;
    links_.push_back(std::move(link));
  }
}

void SideChannel::FinishConnecting(Link& link) {
  int failure = 0;
  socklen_t length = sizeof(failure);
  if (getsockopt(link.descriptor, SOL_SOCKET, SO_ERROR, &failure, &length) != 0 || failure != 0) {
    connect_deadline_ = Clock::now();
    return;
  }
  link.connecting = false;
  const int on = 1;
  (void)setsockopt(link.descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  std::string hello = hello_secret_;
  hello.append(reinterpret_cast<const char*>(&rank_), sizeof(rank_));
  Queue(link, hello);
}

void SideChannel::Queue(Link& link, const std::string& message) {
  CHECK_LE(message.size(), kMostFrameBytes);
  if (link.outbox.size() + message.size() > kMostQueuedBytes) {
    return;
  }
  const auto bytes = static_cast<uint32_t>(message.size());
  link.outbox.append(reinterpret_cast<const char*>(&bytes), sizeof(bytes));
  link.outbox += message;
  // A connection that is gone is noticed by Wait.
  (void)Flush(link);
}

bool SideChannel::Flush(Link& link) {
  while (!link.outbox.empty()) {
    const ssize_t sent =
        send(link.descriptor, link.outbox.data(), link.outbox.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0) {
      return errno == EAGAIN || errno == EINTR;
    }
    link.outbox.erase(0, static_cast<size_t>(sent));
  }
  return true;
}

bool SideChannel::Receive(Link& link, std::vector<Event>& events) {
  std::array<char, 4096> chunk;
  const ssize_t count = recv(link.descriptor, chunk.data(), chunk.size(), MSG_DONTWAIT);
  if (count <= 0) {
    return count < 0 && (errno == EAGAIN || errno == EINTR);
  }
  link.inbox.append(chunk.data(), static_cast<size_t>(count));
  uint32_t bytes = 0;
  while (link.inbox.size() >= sizeof(bytes)) {
    std::memcpy(&bytes, link.inbox.data(), sizeof(bytes));
    if (bytes > kMostFrameBytes) {
      return false;
    }
    if (link.inbox.size() < sizeof(bytes) + bytes) {
      break;
    }
    const std::string frame = link.inbox.substr(sizeof(bytes), bytes);
    link.inbox.erase(0, sizeof(bytes) + bytes);
    if (!TakeFrame(link, frame, events)) {
      return false;
    }
  }
  return true;
}

bool SideChannel::TakeFrame(Link& link, const std::string& frame, std::vector<Event>& events) {
  if (link.rank >= 0) {
    events.push_back({Event::Kind::kMessage, link.rank, frame});
    return true;
  }
  if (rank_ != 0) {
    if (frame != welcome_secret_) {
      return false;
    }
    link.rank = 0;
    addresses_.clear();
    connect_deadline_ = Clock::time_point::max();
    return true;
  }
  int rank = -1;
  if (frame.size() != kSecretBytes + sizeof(rank) ||
      frame.compare(0, kSecretBytes, hello_secret_) != 0) {
    return false;
  }
  std::memcpy(&rank, frame.data() + kSecretBytes, sizeof(rank));
  if (rank <= 0 || rank >= size_) {
    return false;
  }
  link.rank = rank;
  Queue(link, welcome_secret_);
  return true;
}

void SideChannel::Drop(Link& link, std::vector<Event>& events) {
  (void)close(std::exchange(link.descriptor, -1));
  if (link.rank >= 0) {
    events.push_back({Event::Kind::kLost, link.rank, ""});
  } else if (rank_ != 0) {
    connect_deadline_ = Clock::now();
  }
}

void SideChannel::Serve(Link& link, short ready, std::vector<Event>& events) {
  if (link.connecting && ready != 0) {
    FinishConnecting(link);
    if (link.connecting) {
      return;
    }
  }
  bool alive = true;
  if ((ready & POLLOUT) != 0) {
    alive = Flush(link);
  }
  // What was sent before the end is still read.
  if (alive && (ready & (POLLIN | POLLHUP | POLLERR)) != 0) {
    alive = Receive(link, events);
  }
  if (!alive) {
    Drop(link, events);
  }
}

void SideChannel::Send(int rank, const std::string& message) {
  for (const std::unique_ptr<Link>& link : links_) {
    if (link->rank == rank) {
      Queue(*link, message);
    }
  }
}

void SideChannel::SendToAll(const std::string& message) {
  for (const std::unique_ptr<Link>& link : links_) {
    if (link->rank >= 0) {
      Queue(*link, message);
    }
  }
}

std::vector<SideChannel::Event> SideChannel::Wait(std::chrono::milliseconds timeout) {
  std::vector<Event> events;
  if (rank_ != 0 && Clock::now() >= connect_deadline_) {
    GiveUpConnecting(events);
  }
  std::vector<pollfd> polled = {{wake_, POLLIN, 0}, {listener_, POLLIN, 0}};
  for (const std::unique_ptr<Link>& link : links_) {
    const bool sends = link->connecting || !link->outbox.empty();
    polled.push_back({link->descriptor, static_cast<short>(POLLIN | (sends ? POLLOUT : 0)), 0});
  }
  if (poll(polled.data(), polled.size(), static_cast<int>(timeout.count())) <= 0) {
    return events;
  }
  if (polled[0].revents != 0) {
    uint64_t count = 0;
    [[maybe_unused]] const ssize_t cleared = read(wake_, &count, sizeof(count));
  }
  for (size_t i = 0; i + 2 < polled.size(); ++i) {
    Serve(*links_[i], polled[i + 2].revents, events);
  }
  if (polled[1].revents != 0) {
    Accept();
  }
  links_.erase(std::remove_if(links_.begin(), links_.end(),
                              [](const auto& link) { return link->descriptor < 0; }),
               links_.end());
  return events;
}

void SideChannel::Wake() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(wake_, &one, sizeof(one));
}

}  // namespace panthera
