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

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <string_view>
#include <utility>

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

std::string SectionBytes(std::ifstream& file, const ElfW(Shdr) & section) {
  constexpr std::uint64_t kTableLimit = 64 << 20;
  return section.sh_size > kTableLimit ? "" : ReadAt(file, section.sh_offset, section.sh_size);
}

// What the dynamic linker reads in a program: names it defines, names it needs, libraries it names.
struct DynamicNames {
  bool defines_malloc = false;  // for all that is loaded into it
  bool has_asan = false;        // AddressSanitizer, as a library or linked in
};

// The string that begins at `offset`, and whether it is or begins with `name`.
bool IsAt(const std::string& strings, std::uint64_t offset, std::string_view name) {
  return offset < strings.size() && strings.compare(offset, name.size(), name) == 0;
}

void ReadSymbols(const std::string& symbols, const std::string& strings, DynamicNames& names) {
  constexpr std::string_view kMalloc("malloc\0", 7), kAsanInit("__asan_init\0", 12);
  for (std::size_t at = 0; at + sizeof(ElfW(Sym)) <= symbols.size(); at += sizeof(ElfW(Sym))) {
    ElfW(Sym) symbol;
    std::memcpy(&symbol, symbols.data() + at, sizeof(symbol));
    const bool defined = symbol.st_shndx != SHN_UNDEF && ELF64_ST_TYPE(symbol.st_info) == STT_FUNC;
    names.defines_malloc |= defined && IsAt(strings, symbol.st_name, kMalloc);
    names.has_asan |= IsAt(strings, symbol.st_name, kAsanInit);
  }
}

void ReadLibraries(const std::string& entries, const std::string& strings, DynamicNames& names) {
  for (std::size_t at = 0; at + sizeof(ElfW(Dyn)) <= entries.size(); at += sizeof(ElfW(Dyn))) {
    ElfW(Dyn) entry;
    std::memcpy(&entry, entries.data() + at, sizeof(entry));
    names.has_asan |= entry.d_tag == DT_NEEDED && IsAt(strings, entry.d_un.d_val, "libasan.so");
  }
}

DynamicNames ReadDynamicNames(std::ifstream& file, const ElfW(Ehdr) & header) {
  DynamicNames names;
  for (int i = 0; i < header.e_shnum; ++i) {
    ElfW(Shdr) section, strings;
    if (!Read(file, header.e_shoff + i * sizeof(section), section)) break;
    if (section.sh_type != SHT_DYNSYM && section.sh_type != SHT_DYNAMIC) continue;
    if (!Read(file, header.e_shoff + section.sh_link * sizeof(strings), strings)) break;
    const auto read = section.sh_type == SHT_DYNSYM ? ReadSymbols : ReadLibraries;
    read(SectionBytes(file, section), SectionBytes(file, strings), names);
  }
  return names;
}

volatile pid_t child_for_signals = 0;

// What a terminal sends comes from the kernel, and the program has it too. What a process sends is meant for the program.
void PassOn(int signal, siginfo_t* info, void* /*context*/) {
  const bool from_terminal = (signal == SIGINT || signal == SIGQUIT) && info->si_code > 0;
  if (child_for_signals <= 0 || from_terminal) return;
  const int saved_errno = errno;
  kill(child_for_signals, signal);
  errno = saved_errno;
}

// From its making to its end no signal that is meant for the program ends this process. They wait until PassTo().
class SignalsToChild {
 public:
  SignalsToChild() {
    sigset_t signals;
    sigemptyset(&signals);
    for (const int signal : kSignals) sigaddset(&signals, signal);
    sigprocmask(SIG_BLOCK, &signals, &mask_before_);
    for (int i = 0; i < kCount; ++i) sigaction(kSignals[i], nullptr, &before_[i]);
  }
  ~SignalsToChild() {
    ChildEnded();
    for (int i = 0; i < kCount; ++i) sigaction(kSignals[i], &before_[i], nullptr);
    Unblock();
  }
  SignalsToChild(const SignalsToChild&) = delete;
  SignalsToChild& operator=(const SignalsToChild&) = delete;

  void PassTo(pid_t child) {
    child_for_signals = child;
    for (const int signal : kSignals) {
      struct sigaction action = {};
      action.sa_sigaction = PassOn;
      action.sa_flags = SA_RESTART | SA_SIGINFO;
      sigaction(signal, &action, nullptr);
    }
    Unblock();
  }
  // Before its id may be another's.
  static void ChildEnded() { child_for_signals = 0; }
  // In the child: as this process was started.
  void Unblock() const { sigprocmask(SIG_SETMASK, &mask_before_, nullptr); }

 private:
  static constexpr int kSignals[] = {SIGINT, SIGQUIT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2};
  static constexpr int kCount = 6;
  struct sigaction before_[kCount];
  sigset_t mask_before_;
};

// The pipe through which the writer reports. Its descriptors are none of those that a program finds open or closed when it
// starts: a closed standard stream stays closed, and nothing is written over another one.
class ReportPipe {
 public:
  ~ReportPipe() {
    for (const int end : ends_) {
      if (end >= 0) close(end);
    }
  }

  absl::Status Open() {
    int low[2];
    if (pipe2(low, O_CLOEXEC) != 0) return CannotOpen();
    for (int i = 0; i < 2; ++i) {
      ends_[i] = fcntl(low[i], F_DUPFD_CLOEXEC, 10);
      // A lower limit on descriptors.
      if (ends_[i] < 0) ends_[i] = fcntl(low[i], F_DUPFD_CLOEXEC, 3);
    }
    const absl::Status status = ends_[0] < 0 || ends_[1] < 0 ? CannotOpen() : absl::OkStatus();
    close(low[0]);
    close(low[1]);
    return status;
  }

  // In the child: which file the write end is goes along, so that nobody takes a later file with its number for it.
  void GiveToProgram() const {
    struct stat info;
    if (fstat(ends_[1], &info) != 0 || fcntl(ends_[1], F_SETFD, 0) != 0) return;
    setenv("HEAPTAPE_REPORT", absl::StrCat(ends_[1], ":", std::uint64_t{info.st_dev}, ":", std::uint64_t{info.st_ino}).c_str(), 1);
  }

  // Waits until nobody holds the other end.
  std::string ReadToTheEnd() {
    constexpr std::size_t kLimit = 64 << 10;  // whoever writes more is not the writer
    close(std::exchange(ends_[1], -1));
    std::string text;
    char buffer[4096];
    ssize_t got;
    while ((got = read(ends_[0], buffer, sizeof(buffer))) > 0 || (got < 0 && errno == EINTR)) {
      if (got > 0 && text.size() < kLimit) text.append(buffer, static_cast<std::size_t>(got));
    }
    return text;
  }

 private:
  static absl::Status CannotOpen() {
    return absl::ResourceExhaustedError(absl::StrCat("record: cannot make a pipe for the recorder's report: ", std::strerror(errno),
                                                     ". Raise the limit of open files (ulimit -n)."));
  }

  int ends_[2] = {-1, -1};
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
  result.recorded = result.figures.contains("events");
}

// Is `name` what a recording in several files calls one of them? x.tape: x.0001.tape
bool IsSegment(const std::filesystem::path& name, const std::filesystem::path& output) {
  const std::string extension = output.extension().string();
  const std::string text = name.string(), stem = output.stem().string() + ".";
  if (!absl::StartsWith(text, stem) || !absl::EndsWith(text, extension) || text.size() < stem.size() + extension.size()) return false;
  const std::string number = text.substr(stem.size(), text.size() - stem.size() - extension.size());
  return number.size() >= 4 && number.find_first_not_of("0123456789") == std::string::npos;
}

// What lies where the recording goes: its file or files, finished ones and those that end in ".part".
std::vector<std::string> FilesOf(const std::filesystem::path& output, const RecorderOptions& recorder) {
  std::vector<std::string> files;
  if (!recorder.segment_bytes && !recorder.segment_seconds) {
    for (const std::string& file : {output.string(), output.string() + ".part"}) {
      struct stat info;
      if (lstat(file.c_str(), &info) == 0) files.push_back(file);
    }
    return files;
  }
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(output.parent_path(), error)) {
    std::filesystem::path name = entry.path().filename();
    if (name.extension() == ".part") name = name.stem();
    if (IsSegment(name, output)) files.push_back(entry.path().string());
  }
  std::sort(files.begin(), files.end());
  return files;
}

// Nothing that is there is replaced unless asked, and never what is not a file, or not finished.
absl::Status CheckFree(const std::string& output, const RecorderOptions& recorder) {
  if (std::error_code error; std::filesystem::is_directory(output, error)) {
    return absl::InvalidArgumentError(absl::StrCat(output, ": is a folder. Give the name of a file with -o."));
  }
  for (const std::string& file : FilesOf(output, recorder)) {
    struct stat info;
    if (lstat(file.c_str(), &info) != 0) continue;
    if (!S_ISREG(info.st_mode)) {
      return absl::InvalidArgumentError(absl::StrCat(file, ": exists and is not a regular file. Give another name with -o."));
    }
    if (absl::EndsWith(file, ".part")) {
      return absl::AlreadyExistsError(absl::StrCat(file, ": is a recording under way, or one that was killed. Move it away (heaptape pack "
                                                   "makes a whole trace of it), or give another name with -o."));
    }
    if (!recorder.replace) return absl::AlreadyExistsError(absl::StrCat(file, ": exists already; give --force to replace it"));
  }
  return absl::OkStatus();
}

// Which file a path names, by its number on the disk: what replaces it has another.
std::map<std::string, ino_t> IdentitiesOf(const std::vector<std::string>& files) {
  std::map<std::string, ino_t> identities;
  for (const std::string& file : files) {
    struct stat info;
    if (lstat(file.c_str(), &info) == 0) identities[file] = info.st_ino;
  }
  return identities;
}

// Of an end without a report: what there is of it and was not there before.
void FindLeftovers(const std::string& output, const RecorderOptions& recorder, const std::map<std::string, ino_t>& before,
                   LaunchResult& result) {
  for (const auto& [file, identity] : IdentitiesOf(FilesOf(output, recorder))) {
    const auto found = before.find(file);
    if (found != before.end() && found->second == identity) continue;
    (absl::EndsWith(file, ".part") ? result.unfinished : result.finished) = file;
  }
}

[[noreturn]] void BecomeProgram(const std::string& program, const std::vector<std::string>& arguments, const std::string& output,
                                const LaunchOptions& options) {
  std::vector<char*> argv;
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  const char* others = std::getenv("LD_PRELOAD");
  const std::string preload = absl::StrCat(options.preload_path, others && *others ? ":" : "", others ? others : "");
  setenv("LD_PRELOAD", preload.c_str(), 1);
  setenv("HEAPTAPE_OUTPUT", output.c_str(), 1);
  setenv("HEAPTAPE_OPTIONS", FormatOptions(options.recorder).c_str(), 1);
  execv(program.c_str(), argv.data());
  const std::string message = absl::StrCat("heaptape: ", program, ": ", std::strerror(errno), "\n");
  (void)!write(2, message.data(), message.size());
  _exit(126);
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
  const DynamicNames names = ReadDynamicNames(file, header);
  if (names.has_asan) {
    return absl::FailedPreconditionError(absl::StrCat(
        path, ": is built with AddressSanitizer, which ends a program into which another allocator is preloaded. Build it without "
              "-fsanitize=address to record it."));
  }
  if (names.defines_malloc) {
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
  if (absl::Status free = CheckFree(result.output, options.recorder); !free.ok()) return free;
  if (access(options.preload_path.c_str(), R_OK) != 0) {
    return absl::NotFoundError(absl::StrCat(options.preload_path, ": missing. Install or build heaptape completely."));
  }

  ReportPipe report;
  if (absl::Status opened = report.Open(); !opened.ok()) return opened;
  const std::map<std::string, ino_t> before = IdentitiesOf(FilesOf(result.output, options.recorder));
  int status = 0;
  {
    SignalsToChild signals;
    const pid_t child = fork();
    if (child < 0) {
      return absl::ResourceExhaustedError(absl::StrCat(*program, ": cannot be started: ", std::strerror(errno),
                                                       ". Raise the limit of processes (ulimit -u)."));
    }
    if (child == 0) {
      signals.Unblock();
      report.GiveToProgram();
      BecomeProgram(*program, arguments, result.output, options);
    }
    signals.PassTo(child);
    siginfo_t ended;
    while (waitid(P_PID, static_cast<id_t>(child), &ended, WEXITED | WNOWAIT) != 0 && errno == EINTR) {
    }
    SignalsToChild::ChildEnded();
    waitpid(child, &status, 0);
    // The writer alone keeps the other end open: at its end the file is complete.
    ParseReport(report.ReadToTheEnd(), result);
  }
  if (!result.recorded) FindLeftovers(result.output, options.recorder, before, result);
  result.exit_status = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  return result;
}

}  // namespace heaptape
