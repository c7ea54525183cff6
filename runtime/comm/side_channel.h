// Small messages between rank 0 and every other rank of a job that do not pass through MPI or NCCL:
// they arrive while those wait, and tell at once when a process has died.
#ifndef PANTHERA_RUNTIME_COMM_SIDE_CHANNEL_H_
#define PANTHERA_RUNTIME_COMM_SIDE_CHANNEL_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "runtime/comm/host_group.h"

namespace panthera {

// A star of TCP connections around rank 0, on a port that the system chooses. Rank 0 tells the
// others its addresses and a secret of this job through the group that opens the channel; they try
// them one by one. Whoever connects without the secret is turned away.
//
// Open is called by all ranks; then one thread of each process makes the other calls. Nothing
// blocks but Wait, and that no longer than it is told.
class SideChannel {
 public:
  struct Event {
    enum class Kind : uint8_t {
      kMessage,
      kLost,         // the connection ended: the process has died or has closed the channel
      kUnreachable,  // rank 0 answers at none of its addresses; there will be no more events
    };
    Kind kind;
    int rank;             // of the other side
    std::string message;  // of kMessage
  };

  // Collective over all ranks of the job; every rank gets the same status. Does not wait until the
  // ranks are connected.
  static absl::StatusOr<std::unique_ptr<SideChannel>> Open(HostGroup& group);
  SideChannel(const SideChannel&) = delete;
  SideChannel& operator=(const SideChannel&) = delete;
  ~SideChannel();

  // Sends to `rank` (one of the two is 0) as soon as the connection takes it. Messages arrive whole
  // and in order or, if the other side is not connected or has long taken none, not at all.
  void Send(int rank, const std::string& message);
  // Sends to every rank that is connected.
  void SendToAll(const std::string& message);
  // Connects, sends and receives for up to `timeout`; returns early with what has happened, or
  // empty-handed after Wake.
  std::vector<Event> Wait(std::chrono::milliseconds timeout);
  // Lets Wait return. Any thread may call this.
  void Wake();

 private:
  using Clock = std::chrono::steady_clock;

  struct Link {
    int descriptor = -1;
    int rank = -1;  // of the other side; -1 until it has said hello
    bool connecting = false;
    std::string inbox;
    std::string outbox;
  };
  struct Address {
    std::string text;
    int port = 0;
  };

  SideChannel(int rank, int size);
  // Rank 0: opens the port. The result, for DecodeHub, is what the others must know.
  absl::StatusOr<std::string> Listen();
  void DecodeHub(const std::string& encoded);
  void TryNextAddress(std::vector<Event>& events);
  void GiveUpConnecting(std::vector<Event>& events);
  void Accept();
  void FinishConnecting(Link& link);
  void Queue(Link& link, const std::string& message);
  bool Flush(Link& link);
  // False if the link has ended or speaks nonsense.
  bool Receive(Link& link, std::vector<Event>& events);
  bool TakeFrame(Link& link, const std::string& frame, std::vector<Event>& events);
  void Drop(Link& link, std::vector<Event>& events);
  void Serve(Link& link, short ready, std::vector<Event>& events);

  const int rank_;
  const int size_;
  int wake_ = -1;
  int listener_ = -1;
  std::string hello_secret_;
  std::string welcome_secret_;
  std::vector<Address> addresses_;  // of rank 0, still to be tried
  Clock::time_point connect_deadline_;
  std::vector<std::unique_ptr<Link>> links_;
};

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_COMM_SIDE_CHANNEL_H_
