// One allocator family as the catalog knows it: how it is found, loaded, asked, tuned, purged and built.
//
// Each file of allocators/families/ defines one `extern const Family NAME` in namespace heaptape::families,
// NAME being the file's own. The build collects them: adding a family is adding a file.

#ifndef HEAPTAPE_ALLOCATORS_FAMILY_H_
#define HEAPTAPE_ALLOCATORS_FAMILY_H_

#include <string>
#include <utility>
#include <vector>

namespace heaptape {

struct Tunable {
  std::string name;           // as the user writes it
  std::string default_value;  // as the library has it, in the library's own units
  std::string meaning;        // one sentence, with the unit
};

// How a tunable reaches the library. All are read from the environment before the first allocation.
enum class TunableDelivery {
  kNone,             // the library has none
  kVariables,        // one variable each: prefix + NAME IN CAPITALS = value
  kList,             // one variable for all: variable = name<assign>value<separator>...
};

// How a loaded library is asked its version.
enum class VersionQuery {
  kNone,             // it cannot be asked: the package's or the build's name is all there is
  kText,             // const char* symbol()
  kNumber,           // int symbol(): digits major, minor (one or two digits), patch (two digits)
  kMallctl,          // symbol("version", &text, ...)
};

// A package of some Debian release. Its library is found by name among the files it unpacks to.
struct DebianPackage {
  std::string name;
  std::string library;                // file name of the shared library; glob with *
};

// A Debian source package that carries the family's source, its own or a bundled copy. Its own is built with
// Debian's patches, a bundled copy as the bundling project has it.
struct SourcePackage {
  std::string name;
  std::string folder;                 // of the family's source inside it; empty: all of it
  std::string version;                // of a bundled copy; empty: the family's own package, which names it
  std::vector<std::string> releases;  // where that is so; empty: any
  std::string build;                  // commands in place of the family's own; empty: the family's
};

struct Family {
  std::string name;
  std::vector<std::string> aliases;   // names of its project that people use as well
  std::string summary;                // one line
  std::string symbol_prefix;          // put before "malloc" and so on

  // Globs, best first: file names in the system's library folders, or absolute paths.
  std::vector<std::string> libraries;
  enum class Builtin {
    kNo,
    kSystemMalloc,                    // the C library's own
    kOurs,                            // a library installed with heaptape, `libraries` naming it
  } builtin = Builtin::kNo;

  VersionQuery version_query = VersionQuery::kNone;
  std::string version_symbol;

  TunableDelivery delivery = TunableDelivery::kNone;
  std::string tunable_variable;       // the list's variable, or the variables' prefix
  std::string tunable_name_prefix;    // kList: put before each name, "glibc.malloc."
  char tunable_assign = '=';
  char tunable_separator = ':';
  std::vector<Tunable> tunables;
  // Set in every replay, as a tunable is: what would make its figures differ from run to run. {"NAME", "value"}
  std::vector<std::pair<std::string, std::string>> always_set;

  std::string statistics;             // how its own statistics are read
  std::string purge;                  // the call that makes it return what it can

  std::vector<DebianPackage> packages;          // newest naming first
  std::vector<SourcePackage> source_packages;
  // Shell commands run in a copy of the source with $PREFIX (install there), $JOBS and $OPTIONS set.
  std::string build;
  // Programs the build calls, "PROGRAM:PACKAGE" where the Debian package that has it is named otherwise.
  std::vector<std::string> build_needs;
  std::vector<std::string> tag_forms;           // of upstream tags, with VERSION: "v" "VERSION"
  std::string library_after_build;    // glob under $PREFIX; empty: `libraries` anywhere under it

  bool in_all = true;                 // part of `--allocator all`
  std::string caveat;                 // what to know before trusting its figures; may be empty
};

// Every family, by name.
const std::vector<const Family*>& Families();

// By name or alias; nullptr if there is none.
const Family* FindFamily(const std::string& name);

}  // namespace heaptape

#endif  // HEAPTAPE_ALLOCATORS_FAMILY_H_
