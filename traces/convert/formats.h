// The formats of other tools that a trace can be made from and turned into. One file each beside this one,
// which says where its knowledge of the format comes from and what either side cannot hold.

#ifndef HEAPTAPE_TRACES_CONVERT_FORMATS_H_
#define HEAPTAPE_TRACES_CONVERT_FORMATS_H_

#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "traces/convert/byte_reader.h"
#include "traces/convert/imported_program.h"
#include "traces/event.h"
#include "traces/trace_reader.h"

namespace heaptape {

// Takes a piece of output; false stops the export without an error.
using ByteSink = std::function<bool(std::string_view)>;

struct ForeignFormat {
  const char* name;   // what --from and --to say
  const char* title;
  const char* read_loss;  // what a trace made from it does not have
  // Whether a file that begins so may be of the format.
  bool (*recognise)(std::span<const std::uint8_t> head);
  // Reads all of `in`. DataLoss with the line or record where it makes no sense; what came before is kept
  // in `program`. Does not Finish() it.
  absl::Status (*read)(ByteReader& in, ImportedProgram& program);
  // Writes all of `reader`, from where it stands. `losses` gets sentences on what was left out.
  absl::Status (*write)(TraceReader& reader, const ByteSink& sink, std::vector<std::string>& losses);
};

extern const ForeignFormat kHeaptrackFormat;
extern const ForeignFormat kGlibcFormat;
extern const ForeignFormat kAndroidFormat;
extern const ForeignFormat kReplayFormat;

std::span<const ForeignFormat* const> ForeignFormats();
// Null where there is none of that name.
const ForeignFormat* FindForeignFormat(std::string_view name);

// Bytes of `head` that recognise() wants to see.
inline constexpr std::size_t kForeignHeadBytes = 64;

// --- for the exporters ---

// Walks over all events, in order, restored ones too. `take` says whether the format has a place for the
// event; those without are counted by kind.
absl::Status ForEachEvent(TraceReader& reader, const std::function<bool(const Event&)>& take,
                          std::vector<std::string>& losses);

// Gathers small pieces.
class Output {
 public:
  explicit Output(const ByteSink& sink) : sink_(sink) {}
  ~Output() { Flush(); }
  std::string& text() {
    if (text_.size() >= (std::size_t{1} << 16)) Flush();
    return text_;
  }

 private:
  void Flush() {
    if (!text_.empty()) sink_(text_);
    text_.clear();
  }
  const ByteSink& sink_;
  std::string text_;
};

// An address for each slot, as the other side needs one. Never 0.
inline std::uint64_t AddressOfSlot(std::uint32_t slot) { return 0x10000 + std::uint64_t{slot} * 16; }

}  // namespace heaptape

#endif  // HEAPTAPE_TRACES_CONVERT_FORMATS_H_
