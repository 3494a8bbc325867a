// What the writer and its file broker give up once they have what they need. They are forks of a program that may be
// root's, and the writer reads memory that the program can write.

#ifndef HEAPTAPE_RECORDER_WRITER_CONFINEMENT_H_
#define HEAPTAPE_RECORDER_WRITER_CONFINEMENT_H_

#include <sys/types.h>

#include <array>
#include <optional>
#include <string_view>
#include <vector>

namespace heaptape {

// No new privileges; of the capabilities only those to become another user, for as long as the program could; a seccomp
// filter that denies (EPERM) what a writer does not do: opening a file to write, executing, mapping code, connecting,
// signals, tracing.
void ConfineWriter();

// Of the capabilities only the one to write into a folder of another user's; a filter that denies all but making,
// renaming and removing files and answering the writer.
void ConfineBroker();

// The kernel's choice when memory is short, before the program.
void OfferToOutOfMemoryKiller();

// Real, effective and saved ids as /proc/PID/status gives them.
struct Credentials {
  std::array<uid_t, 3> users = {};
  std::array<gid_t, 3> groups = {};
  std::vector<gid_t> supplementary;
  friend bool operator==(const Credentials&, const Credentials&) = default;
};
std::optional<Credentials> ParseCredentials(std::string_view status);

// Takes on the ids of the program. What it may not take on stays as it is.
void Become(const Credentials& credentials);

}  // namespace heaptape

#endif  // HEAPTAPE_RECORDER_WRITER_CONFINEMENT_H_
