#include "recorder/launch.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace heaptape {
namespace {

// Reads up to `bytes` at `offset`; shorter at the end of the file.
std::string ReadAt(std::ifstream& file, std::uint64_t offset, std::uint64_t bytes) {
  std::string data(bytes, '\0');
  file.clear();
  file.seekg(static_cast<std::streamoff>(offset));
  file.read(data.data(), static_cast<std::streamsize>(bytes));
  data.resize(static_cast<std::size_t>(file.gcount()));
  return data;
}

template <typename T>
bool Read(std::ifstream& file, std::uint64_t offset, T& value) {
  const std::string data = ReadAt(file, offset, sizeof(T));
  if (data.size() != sizeof(T)) return false;
  std::memcpy(&value, data.data(), sizeof(T));
  return true;
}

// Does the program itself define `malloc` for all that is loaded into it?
bool DefinesMalloc(std::ifstream& file, const ElfW(Ehdr) & header) {
  constexpr std::uint64_t kTableLimit = 64 << 20;
  for (int i = 0; i < header.e_shnum; ++i) {
    ElfW(Shdr) section;
    if (!Read(file, header.e_shoff + i * sizeof(section), section)) return false;
    if (section.sh_type != SHT_DYNSYM || section.sh_size > kTableLimit) continue;
    ElfW(Shdr) strings;
    if (!Read(file, header.e_shoff + section.sh_link * sizeof(strings), strings)) return false;
    if (strings.sh_size > kTableLimit) return false;
    const std::string symbols = ReadAt(file, section.sh_offset, section.sh_size);
    const std::string names = ReadAt(file, strings.sh_offset, strings.sh_size);
    for (std::size_t at = 0; at + sizeof(ElfW(Sym)) <= symbols.size(); at += sizeof(ElfW(Sym))) {
      ElfW(Sym) symbol;
      std::memcpy(&symbol, symbols.data() + at, sizeof(symbol));
      if (symbol.st_shndx == SHN_UNDEF || ELF64_ST_TYPE(symbol.st_info) != STT_FUNC) continue;
      if (symbol.st_name + 7 <= names.size() && names.compare(symbol.st_name, 7, std::string("malloc\0", 7)) == 0) return true;
    }
  }
  return false;
}

pid_t child_for_signals = 0;

void PassOn(int signal) {
  if (child_for_signals > 0) kill(child_for_signals, signal);
}

// Ignores what the terminal sends to the program as well, passes on the rest, restores all at the end.
class SignalsToChild {
 public:
  explicit SignalsToChild(pid_t child) {
    child_for_signals = child;
    for (int i = 0; i < kCount; ++i) {
      struct sigaction action = {};
      action.sa_handler = kSignals[i] == SIGINT || kSignals[i] == SIGQUIT ? SIG_IGN : PassOn;
      action.sa_flags = SA_RESTART;
      sigaction(kSignals[i], &action, &before_[i]);
    }
  }
  ~SignalsToChild() {
    for (int i = 0; i < kCount; ++i) sigaction(kSignals[i], &before_[i], nullptr);
    child_for_signals = 0;
  }
  SignalsToChild(const SignalsToChild&) = delete;
  SignalsToChild& operator=(const SignalsToChild&) = delete;

 private:
  static constexpr int kSignals[] = {SIGINT, SIGQUIT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2};
  static constexpr int kCount = 6;
  struct sigaction before_[kCount];
};

void ParseReport(const std::string& text, LaunchResult& result) {
  std::istringstream lines(text);
  std::string line;
  while (std::getline(lines, line)) {
    const std::size_t equals = line.find('=');
    if (equals == std::string::npos) continue;
    const std::string name = line.substr(0, equals);
    const std::string value = line.substr(equals + 1);
    std::uint64_t number;
    if (name == "ended_early") {
      result.ended_early = value;
    } else if (name == "error") {
      result.error = value;
    } else if (absl::SimpleAtoi(value, &number)) {
      result.figures[name] = number;
    }
  }
  result.recorded = !result.figures.empty();
}

}  // namespace

absl::StatusOr<std::string> FindProgram(const std::string& name) {
  const auto usable = [](const std::string& path) {
    struct stat info;
    return stat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode) && access(path.c_str(), X_OK) == 0;
  };
  if (absl::StrContains(name, "/")) {
    if (usable(name)) return name;
    if (access(name.c_str(), F_OK) == 0) {
      return absl::PermissionDeniedError(absl::StrCat(name, ": is not a program that may be run. Give an executable file."));
    }
    return absl::NotFoundError(absl::StrCat(name, ": no such program. Check the path after --."));
  }
  const char* search = std::getenv("PATH");
  std::istringstream folders(search ? search : "/usr/local/bin:/usr/bin:/bin");
  std::string folder;
  while (std::getline(folders, folder, ':')) {
    const std::string path = absl::StrCat(folder.empty() ? "." : folder, "/", name);
    if (usable(path)) return path;
  }
  return absl::NotFoundError(absl::StrCat(name, ": no such program in any folder of PATH. Check its name after --."));
}

absl::Status CheckProgram(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  ElfW(Ehdr) header;
  if (!file) return absl::OkStatus();  // may be run but not read: nothing can be said
  const std::string start = ReadAt(file, 0, 256);
  if (absl::StartsWith(start, "#!")) {
    std::istringstream words(start.substr(2));
    std::string interpreter;
    words >> interpreter;
    if (absl::StartsWith(interpreter, "/")) return CheckProgram(interpreter);
    return absl::OkStatus();
  }
  if (!absl::StartsWith(start, "\177ELF")) return absl::OkStatus();
  if (!Read(file, 0, header) || header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_machine != EM_X86_64) {
    return absl::FailedPreconditionError(absl::StrCat(path, ": is not a 64-bit x86-64 program; this recorder is."));
  }
  struct stat info;
  if (stat(path.c_str(), &info) == 0) {
    const bool other_user = (info.st_mode & S_ISUID) && info.st_uid != geteuid();
    const bool other_group = (info.st_mode & S_ISGID) && info.st_gid != getegid();
    const bool capabilities = geteuid() != 0 && getxattr(path.c_str(), "security.capability", nullptr, 0) > 0;
    if (other_user || other_group || capabilities) {
      return absl::FailedPreconditionError(absl::StrCat(
          path, ": gains rights when it is run (setuid, setgid or capabilities), so the system preloads nothing "
                "into it. Record it as the user it becomes, e.g. as root."));
    }
  }
  bool dynamic = false;
  for (int i = 0; i < header.e_phnum; ++i) {
    ElfW(Phdr) segment;
    if (!Read(file, header.e_phoff + i * sizeof(segment), segment)) break;
    dynamic |= segment.p_type == PT_INTERP;
  }
  if (!dynamic) {
    return absl::FailedPreconditionError(absl::StrCat(
        path, ": is statically linked, so nothing can be preloaded into it. Link it dynamically to record it."));
  }
  if (DefinesMalloc(file, header)) {
    return absl::FailedPreconditionError(absl::StrCat(
        path, ": brings its own malloc, which its calls reach before any preloaded one. Link it with the allocator as a "
              "shared library to record it."));
  }
  return absl::OkStatus();
}

std::string FormatOptions(const RecorderOptions& options) {
  std::string text;
#define HEAPTAPE_OPTION(name) absl::StrAppend(&text, #name "=", options.name, ";");
  HEAPTAPE_RECORDER_OPTIONS(HEAPTAPE_OPTION)
#undef HEAPTAPE_OPTION
  return text;
}

absl::StatusOr<LaunchResult> RunRecorded(const std::vector<std::string>& arguments, const LaunchOptions& options) {
  const absl::StatusOr<std::string> program = FindProgram(arguments[0]);
  if (!program.ok()) return program.status();
  if (absl::Status status = CheckProgram(*program); !status.ok()) return status;

  LaunchResult result;
  std::error_code error;
  result.output = std::filesystem::absolute(options.output, error).lexically_normal().string();
  const std::string folder = std::filesystem::path(result.output).parent_path().string();
  struct stat info;
  if (stat(folder.c_str(), &info) != 0 || !S_ISDIR(info.st_mode)) {
    return absl::NotFoundError(absl::StrCat(folder, ": no such folder for the recording. Make it or give another with -o."));
  }
  if (access(folder.c_str(), W_OK) != 0) {
    return absl::PermissionDeniedError(absl::StrCat(folder, ": ", std::strerror(errno), ", so the recording cannot be written there. Give another file with -o."));
  }
  if (stat(result.output.c_str(), &info) == 0 && S_ISDIR(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(result.output, ": is a folder. Give the name of a file with -o."));
  }
  if (access(options.preload_path.c_str(), R_OK) != 0) {
    return absl::NotFoundError(absl::StrCat(options.preload_path, ": missing. Install or build heaptape completely."));
  }

  int report[2];
  if (pipe(report) != 0) return absl::ErrnoToStatus(errno, "pipe");
  struct stat pipe_info;
  if (fstat(report[1], &pipe_info) != 0) return absl::ErrnoToStatus(errno, "pipe");
  const std::string report_name = absl::StrCat(report[1], ":", pipe_info.st_dev, ":", pipe_info.st_ino);
  const std::string text = FormatOptions(options.recorder);
  const char* others = std::getenv("LD_PRELOAD");
  const std::string preload = absl::StrCat(options.preload_path, others && *others ? ":" : "", others ? others : "");
  std::vector<char*> argv;
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);

  const pid_t child = fork();
  if (child < 0) return absl::ErrnoToStatus(errno, "fork");
  if (child == 0) {
    close(report[0]);
    setenv("LD_PRELOAD", preload.c_str(), 1);
    setenv("HEAPTAPE_OUTPUT", result.output.c_str(), 1);
    setenv("HEAPTAPE_OPTIONS", text.c_str(), 1);
    setenv("HEAPTAPE_REPORT", report_name.c_str(), 1);
    execv(program->c_str(), argv.data());
    const std::string message = absl::StrCat("heaptape: ", *program, ": ", std::strerror(errno), "\n");
    (void)!write(2, message.data(), message.size());
    _exit(126);
  }
  close(report[1]);
  int status = 0;
  {
    SignalsToChild signals(child);
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    // The writer alone keeps the other end open: at its end the file is complete.
    std::string reported;
    char buffer[4096];
    ssize_t got;
    while ((got = read(report[0], buffer, sizeof(buffer))) > 0 || (got < 0 && errno == EINTR)) {
      if (got > 0) reported.append(buffer, static_cast<std::size_t>(got));
    }
    ParseReport(reported, result);
  }
  close(report[0]);
  result.exit_status = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  return result;
}

}  // namespace heaptape
