#include "recorder/writer/file_broker.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"

namespace heaptape {
namespace {

enum class Kind : std::uint32_t { kOpen = 1, kFinish, kDiscard, kRemove, kNewClient };

struct Request {
  Kind kind;
  FileName name;
  FileName last;
};

struct Reply {
  std::int32_t code = 0;  // absl::StatusCode
  char message[1020] = {};
};

constexpr std::size_t kClientsMax = 256;

// Sends `bytes` with a descriptor where `file` is not below 0.
bool Send(int socket, const void* bytes, std::size_t size, int file = -1) {
  iovec part = {const_cast<void*>(bytes), size};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (file >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(header), &file, sizeof(int));
  }
  ssize_t sent;
  do {
    sent = sendmsg(socket, &message, MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  return sent == static_cast<ssize_t>(size);
}

// Receives exactly `size` bytes, and a descriptor into `file` where one comes along.
bool Receive(int socket, void* bytes, std::size_t size, int* file) {
  iovec part = {bytes, size};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  ssize_t got;
  do {
    got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  } while (got < 0 && errno == EINTR);
  *file = -1;
  const cmsghdr* header = got > 0 ? CMSG_FIRSTHDR(&message) : nullptr;
  if (header && header->cmsg_type == SCM_RIGHTS) std::memcpy(file, CMSG_DATA(header), sizeof(int));
  return got == static_cast<ssize_t>(size);
}

class Broker {
 public:
  Broker(std::unique_ptr<LocalFiles> files, int client) : files_(std::move(files)), clients_({client}) {}

  void Serve() {
    std::vector<pollfd> polled;
    while (!clients_.empty()) {
      polled.clear();
      for (const int client : clients_) polled.push_back({client, POLLIN, 0});
      if (poll(polled.data(), polled.size(), -1) < 0 && errno != EINTR) return;
      for (const pollfd& one : polled) {
        if (one.revents != 0 && !Answer(one.fd)) Drop(one.fd);
      }
    }
  }

 private:
  void Drop(int client) {
    close(client);
    clients_.erase(std::find(clients_.begin(), clients_.end(), client));
  }

  // False: the client has gone, or speaks another language.
  bool Answer(int client) {
    Request request;
    int unasked;
    const bool received = Receive(client, &request, sizeof(request), &unasked);
    if (unasked >= 0) close(unasked);
    if (!received) return false;
    int file = -1;
    const absl::Status status = Do(request, &file);
    Reply reply;
    reply.code = static_cast<std::int32_t>(status.code());
    const std::string text(status.message());
    std::memcpy(reply.message, text.data(), std::min(text.size(), sizeof(reply.message) - 1));
    const bool sent = Send(client, &reply, sizeof(reply), file);
    if (file >= 0) close(file);
    return sent;
  }

  absl::Status Do(const Request& request, int* file) {
    switch (request.kind) {
      case Kind::kOpen: {
        const absl::StatusOr<int> opened = files_->Open(request.name);
        if (opened.ok()) *file = *opened;
        return opened.status();
      }
      case Kind::kFinish: return files_->Finish(request.name, request.last);
      case Kind::kDiscard: files_->Discard(request.name); return absl::OkStatus();
      case Kind::kRemove: files_->Remove(request.name); return absl::OkStatus();
      case Kind::kNewClient: return NewClient(file);
    }
    return absl::InvalidArgumentError("a request that no writer makes; install heaptape completely anew");
  }

  absl::Status NewClient(int* file) {
    int ends[2];
    if (clients_.size() >= kClientsMax || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
      return absl::ResourceExhaustedError("too many processes are recorded at once; record fewer of them");
    }
    clients_.push_back(ends[0]);
    *file = ends[1];
    return absl::OkStatus();
  }

  std::unique_ptr<LocalFiles> files_;
  std::vector<int> clients_;
};

class RemoteFiles final : public RecordingFiles {
 public:
  RemoteFiles(const std::string& path, int socket, int folder) : RecordingFiles(path), socket_(socket), folder_(folder) {}
  ~RemoteFiles() override {
    close(socket_);
    close(folder_);
  }

  absl::StatusOr<int> Open(const FileName& name) override { return Ask({Kind::kOpen, name, {}}); }
  absl::Status Finish(const FileName& name, const FileName& last) override {
    return Ask({Kind::kFinish, name, last}).status();
  }
  void Discard(const FileName& name) override { (void)Ask({Kind::kDiscard, name, {}}); }
  void Remove(const FileName& name) override { (void)Ask({Kind::kRemove, name, {}}); }
  std::uint64_t DiskFree() const override {
    struct statvfs disk;
    if (fstatvfs(folder_, &disk) != 0) return ~std::uint64_t{0};
    return static_cast<std::uint64_t>(disk.f_bavail) * disk.f_frsize;
  }
  absl::StatusOr<std::unique_ptr<RecordingFiles>> ForChild() override {
    const absl::StatusOr<int> socket = Ask({Kind::kNewClient, {}, {}});
    if (!socket.ok()) return socket.status();
    const int folder = fcntl(folder_, F_DUPFD_CLOEXEC, 3);
    return std::make_unique<RemoteFiles>(path(), *socket, folder);
  }

 private:
  absl::StatusOr<int> Ask(const Request& request) {
    Reply reply;
    int file;
    if (!Send(socket_, &request, sizeof(request)) || !Receive(socket_, &reply, sizeof(reply), &file)) {
      return absl::UnavailableError(absl::StrCat(Path(request.name), ": the process that makes the recording's files was killed. "
                                                 "Use what was recorded until then, ", Path(request.name), ".part."));
    }
    if (reply.code == 0) return file;
    if (file >= 0) close(file);
    reply.message[sizeof(reply.message) - 1] = '\0';
    return absl::Status(static_cast<absl::StatusCode>(reply.code), reply.message);
  }

  int socket_;
  int folder_;  // for its free space
};

}  // namespace

absl::StatusOr<std::unique_ptr<RecordingFiles>> StartFileBroker(const std::string& path, bool replace,
                                                                const std::function<void(const std::vector<int>& needed)>& confine) {
  absl::StatusOr<std::unique_ptr<LocalFiles>> files = LocalFiles::Create(path, replace);
  if (!files.ok()) return files.status();
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) return absl::ErrnoToStatus(errno, "socketpair");
  const pid_t writer = fork();
  if (writer < 0) return absl::ErrnoToStatus(errno, "no process for the writer (see ulimit -u)");
  if (writer != 0) {
    close(ends[1]);
    // Writers whose own writer has ended stay in this family, and never become the program's children.
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    confine({ends[0], (*files)->folder()});
    Broker(*std::move(files), ends[0]).Serve();
    _exit(0);
  }
  close(ends[0]);
  const int folder = fcntl((*files)->folder(), F_DUPFD_CLOEXEC, 3);
  return std::make_unique<RemoteFiles>(path, ends[1], folder);
}

}  // namespace heaptape
