#include "tests/simt/emulator/device_state.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <random>
#include <utility>

namespace simt {
namespace {

// What the emulated device has.
constexpr size_t kDeviceBytes = size_t{4} << 30;
constexpr size_t kDefaultDynamicShared = 48 << 10;

}  // namespace

void Stream::RunNext() {
  const std::function<void()> work = std::move(queue_.front());
  queue_.pop_front();
  work();
}

void Event::Record(Stream& stream) {
  state_ = std::make_shared<State>(State{.stream = &stream, .is_complete = false});
  stream.Enqueue([state = state_] {
    state->is_complete = true;
    state->milliseconds = DeviceState::Get().milliseconds();
  });
}

bool Event::Poll() const {
  if (is_complete()) {
    return true;
  }
  state_->stream->RunNext();
  return false;
}

std::function<void()> Event::Waiter() const {
  return [state = state_] {
    while (!state->is_complete) {
      state->stream->RunNext();
    }
  };
}

DeviceState& DeviceState::Get() {
  thread_local DeviceState state;
  return state;
}

void* DeviceState::Allocate(size_t bytes) {
  ++counts_.allocations;
  if (bytes > kDeviceBytes - used_bytes_) {
    return nullptr;
  }
  auto memory = std::make_unique_for_overwrite<char[]>(bytes);
  std::memset(memory.get(), 0xff, bytes);
  void* const pointer = memory.get();
  allocations_[pointer] = std::move(memory);
  allocation_bytes_[pointer] = bytes;
  used_bytes_ += bytes;
  return pointer;
}

bool DeviceState::Free(void* pointer) {
  ++counts_.allocations;
  SynchronizeAll();
  const auto found = allocation_bytes_.find(pointer);
  if (found == allocation_bytes_.end()) {
    return false;
  }
  used_bytes_ -= found->second;
  allocation_bytes_.erase(found);
  allocations_.erase(pointer);
  return true;
}

Stream* DeviceState::NewStream() {
  auto stream = std::make_unique<Stream>(streams_made_++);
  Stream* const pointer = stream.get();
  streams_[pointer] = std::move(stream);
  return pointer;
}

void DeviceState::DeleteStream(Stream* stream) {
  Synchronize(stream);
  streams_.erase(stream);
}

std::vector<int64_t> DeviceState::Streams() const {
  std::vector<int64_t> numbers;
  for (const auto& [stream, owner] : streams_) {
    numbers.push_back(stream->number());
  }
  return numbers;
}

Event* DeviceState::NewEvent() {
  ++counts_.events;
  auto event = std::make_unique<Event>();
  Event* const pointer = event.get();
  events_[pointer] = std::move(event);
  return pointer;
}

void DeviceState::DeleteEvent(Event* event) {
  event->Complete();
  events_.erase(event);
}

void DeviceState::Enqueue(Stream* stream, std::function<void()> work) {
  if (stream == nullptr) {
    ++counts_.default_stream_uses;
    SynchronizeAll();
    work();
    return;
  }
  stream->Enqueue(std::move(work));
  const bool is_ahead =
      options_.execution == Execution::kOneAhead && stream->number() == options_.stream_ahead;
  if (is_ahead || options_.execution == Execution::kEarly) {
    Synchronize(stream);
  }
}

void DeviceState::Synchronize(Stream* stream) {
  if (stream == nullptr) {
    SynchronizeAll();
    return;
  }
  while (!stream->empty()) {
    stream->RunNext();
  }
}

void DeviceState::SynchronizeAll() {
  for (auto& [stream, owner] : streams_) {
    Synchronize(stream);
  }
}

size_t DeviceState::dynamic_shared_limit(const void* kernel) const {
  const auto found = dynamic_limits_.find(kernel);
  return found == dynamic_limits_.end() ? kDefaultDynamicShared : found->second;
}

void DeviceState::SetError(const std::string& error) {
  if (error_.empty()) {
    error_ = error;
  }
}

void DeviceState::Reset() {
  error_.clear();
  counts_ = {};
  options_ = {};
  SynchronizeAll();
  error_.clear();
}

std::string RunGrid(const Launch& launch) {
  const size_t blocks = size_t{launch.grid.x} * launch.grid.y * launch.grid.z;
  std::vector<size_t> order(blocks);
  std::iota(order.begin(), order.end(), size_t{0});
  if (launch.order_seed != 0) {
    std::shuffle(order.begin(), order.end(), std::mt19937_64(launch.order_seed));
  }
  BlockRunner runner(launch);
  for (const size_t block : order) {
    const size_t row = block / launch.grid.x;
    const uint3 index{static_cast<unsigned>(block % launch.grid.x),
                      static_cast<unsigned>(row % launch.grid.y),
                      static_cast<unsigned>(row / launch.grid.y)};
    std::string error = runner.Run(index);
    if (!error.empty()) {
      return error;
    }
  }
  return "";
}

}  // namespace simt
